"""`make chaos` and `make soak`: plays of chaos, each with a seed of its own, until one breaks a promise."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.chaos.faults import FAULTS
from tests.chaos.play import play
from tests.postgres_server import postgres_server


def main() -> None:
    """Play and print what happened, a line of JSON each."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of faults in each play")
    parser.add_argument("--plays", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the first")
    parser.add_argument("--only", nargs="*", choices=FAULTS, default=(), help="these faults")
    options = parser.parse_args()
    with postgres_server() as postgres:
        for number in range(options.plays):
            seed = options.seed + number
            sys.stderr.write(f"seed {seed}\n")
            with tempfile.TemporaryDirectory(prefix="zene-chaos-") as folder:
                report = asyncio.run(
                    play(
                        Path(folder),
                        postgres,
                        seed=seed,
                        seconds=options.seconds,
                        only=options.only,
                    )
                )
            sys.stdout.write(f"{msgspec.json.encode(report).decode()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

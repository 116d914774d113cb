"""`make bench`: Zene against the bare loop of the same run, on a model server without delay.

All three run as processes of their own, on loopback, in a temporary folder. What is measured is compared
within a round, since a machine's speed drifts.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.processes import ROOT, has_exact_accounting
from benchmarks.rounds import Counts, Round, measured
from benchmarks.scenario import model_server
from benchmarks.table import markdown

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"


def main() -> None:
    """Measure, print, and keep the table where asked to."""
    options = _parsed()
    rounds = uvloop.run(_rounds(2 if options.quick else options.rounds, quick=options.quick))
    report = f"{_conditions()}\n\n{markdown(rounds)}"
    print(report)
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        README.write_text(f"{before}{BEGIN}\n{report}\n{END}{after}")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="how often all is measured")
    parser.add_argument("--quick", action="store_true", help="two rounds, with fewer samples")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {README.name}")
    return parser.parse_args()


async def _rounds(count: int, *, quick: bool) -> list[Round]:
    counts = Counts(tasks=3, outputs=8, streams=2, idle_sessions=2000) if quick else Counts()
    done = []
    with tempfile.TemporaryDirectory(prefix="zene-bench-") as name:
        async with model_server(Path(name)) as model_url:
            for number in range(count):
                folder = Path(name, str(number))
                await asyncio.to_thread(folder.mkdir)
                began = time.monotonic()
                done.append(await measured(folder, model_url, counts, zene_first=bool(number % 2)))
                took = time.monotonic() - began
                print(f"round {number + 1} of {count}: {took:.0f} s", file=sys.stderr)
    return done


def _conditions() -> str:
    """What the figures depend on."""
    accounting = "by the kernel's accounting group" if has_exact_accounting() else "by its clocks"
    return (
        f"{machine()}; SQLite with a sync per commit, sandboxes by bubblewrap. CPU time is that of the whole tree of "
        f"processes, {accounting}; memory is the proportional set size of the tree."
    )


def machine() -> str:
    """When, of what and where something was measured."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {_commit()}: {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, as {user}"
    )


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()

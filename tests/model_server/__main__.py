"""`python -m tests.model_server --port 0 --script FILE` prints `ready PORT` and serves until it is ended.

FILE is a JSON object of scripts by model or key, or a recorded trajectory, which is then played for every
model. Without FILE every model streams `--tokens` words.
"""

import argparse
import asyncio
import json
from pathlib import Path

import msgspec
import uvloop

from tests.model_server import Answer, ModelServer, Script, play_trajectory


def _scripts(path: Path | None, tokens: int) -> dict[str, Script]:
    if path is None:
        return {"*": Script(answers=[Answer(tokens=tokens)])}
    content = json.loads(path.read_text())
    if "steps" in content:
        return {"*": play_trajectory(path)}
    return msgspec.convert(content, dict[str, Script])


async def _serve(port: int, scripts: dict[str, Script]) -> None:
    async with ModelServer(scripts, port=port) as server:
        print("ready", server.port, flush=True)  # noqa: T201 - what a parent process waits for
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--tokens", type=int, default=2000)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, _scripts(options.script, options.tokens)))


if __name__ == "__main__":
    main()

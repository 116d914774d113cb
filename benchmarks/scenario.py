"""What the model answers in the benchmarks, and the server that plays it."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.processes import started

TURNS = "TURNS"  # ten calls of the tool `shell`, then a word
PROGRAMS = "PROGRAMS"  # the same with a small program a call, in place of `true`
ONE = "ONE"  # one call, which has the sandbox up, then a word
SAY = "SAY"  # a word
STREAM = "STREAM"  # as many tokens
WAIT = "WAIT"  # silence, for longer than any recovery takes
TOKENS = 2000


def _call(number: int) -> dict[str, Any]:
    """`true` with a number that it ignores: five equal calls would end the task as going in circles."""
    return {"calls": [{"name": "shell", "arguments": {"command": f"true {number}"}}]}


def _program(number: int) -> dict[str, Any]:
    """Some 13 ms of Python: what a call costs whose command does something."""
    command = f"/usr/bin/python3 -c 'print({number})'"
    return {"calls": [{"name": "shell", "arguments": {"command": command}}]}


_END = {"text": "Done."}
_ANSWERS = {
    TURNS: [*map(_call, range(10)), _END],
    PROGRAMS: [*map(_program, range(10)), _END],
    ONE: [_call(0), _END],
    SAY: [_END],
    STREAM: [{"tokens": TOKENS}],
    WAIT: [{"text": "Done.", "delay_ms": 20_000}],
}


class ModelLog:
    """The model server's memory of its requests."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_log"

    async def forget(self) -> None:
        """Begin anew."""
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.delete(self._url)

    async def sizes(self) -> list[int]:
        """Bytes of each request's body, in order."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(self._url)
        return [len(request["body"].encode()) for request in answer.json()["requests"]]


@asynccontextmanager
async def model_server(folder: Path) -> AsyncGenerator[str, None]:
    """The tests' model server with these answers, without delay; its address."""
    script = folder / "answers.json"
    script.write_text(json.dumps({"*": {"answers_to": _ANSWERS}}))
    command = ["tests.model_server", "--script", str(script)]
    async with started(command, log=folder / "model.log") as child:
        yield f"http://127.0.0.1:{child.port}"

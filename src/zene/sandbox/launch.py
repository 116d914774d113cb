"""The server's end of the launcher: start it, ask it, one request at a time."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zene.domain.errors import SandboxUnavailable
from zene.sandbox.launcher import receive

ANSWER_SECONDS = 30.0
END_SECONDS = 10.0

_SOURCE = str(Path(__file__).parents[2])
_CODE = f"import sys; sys.path.append({_SOURCE!r}); from zene.sandbox.launcher import main; main()"


class Launcher:
    """A running launcher process. It ends, and all its sandboxes with it, when this end is closed."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(0)
        self._turn = asyncio.Lock()
        self._asked = 0
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own code
                [sys.executable, "-I", "-S", "-c", _CODE], stdin=theirs.fileno(), env={}
            )

    async def start(self, request: dict[str, Any], fds: Sequence[int]) -> int:
        """Start a sandbox; the answer is the pidfd of its outermost process. Raises SandboxUnavailable."""
        return (await self._ask(request, fds))[0]

    async def move(self, namespace_fd: int, mounts: Sequence[tuple[str, int]]) -> None:
        """Attach detached mounts at their targets in a mount namespace. Raises SandboxUnavailable."""
        targets = [target for target, _ in mounts]
        await self._ask({"targets": targets}, [namespace_fd, *(fd for _, fd in mounts)])

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    async def close(self) -> None:
        """End it. Twice is harmless."""
        self._socket.close()
        try:
            await asyncio.to_thread(self._process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def _ask(self, request: dict[str, Any], fds: Sequence[int]) -> list[int]:
        async with self._turn:
            self._asked += 1
            packet = json.dumps({**request, "number": self._asked}).encode()
            try:
                socket.send_fds(self._socket, [packet], list(fds))
                answer, received = await self._answer()
            except OSError as err:
                raise SandboxUnavailable(f"the launcher does not answer: {err}") from err
        if answer["error"]:
            raise SandboxUnavailable(f"the sandbox could not be set up: {answer['error']}")
        return received

    async def _answer(self) -> tuple[dict[str, Any], list[int]]:
        """The answer to the last request; one whose asker was cancelled is dropped with its fds."""
        while True:
            await readable(self._socket.fileno(), ANSWER_SECONDS)
            packet, received = receive(self._socket)
            if not packet:
                raise ConnectionResetError("it has ended")
            answer = json.loads(packet)
            if answer["number"] == self._asked:
                return answer, received
            for fd in received:
                os.close(fd)


async def readable(fd: int, seconds: float) -> None:
    """Wait until the fd can be read. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(seconds):
            await ready.wait()
    finally:
        loop.remove_reader(fd)

"""A real Redis of a test's own, that can be killed, frozen and filled up: on a free port, in a temporary folder."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import a_free_port
from zene.bus.resp import address, connect

SECONDS = 20.0


class RedisServer:
    """What a test may do to it; `url` is where it is, across restarts."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = a_free_port()
        self.password = password
        self._folder = folder
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it on an empty memory, and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed")
        password = ("--requirepass", self.password) if self.password else ()
        self._process = await asyncio.create_subprocess_exec(
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--daemonize", "no", *password, *self._options,
            cwd=self._folder, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = b""
        async with asyncio.timeout(SECONDS):
            while b"Ready to accept connections" not in said:
                said = await self._process.stdout.readline()
                assert said, "redis-server ended"

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._process = None

    async def stop(self) -> None:
        """End it if it runs; harmless twice."""
        if self._process is not None:
            await self.kill()

    async def restart(self) -> None:
        """Kill it, and start it empty."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """Let it keep its connections, and say nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    async def ask(self, *command: str | int) -> Any:
        """A command of the operator's."""
        connection = await connect(address(self.url))
        try:
            if self.password:
                await connection.call("AUTH", self.password)
            return await connection.call(*command)
        finally:
            connection.drop("asked")


@asynccontextmanager
async def redis_server(
    folder: Path, *options: str, password: str = ""
) -> AsyncGenerator[RedisServer, None]:
    """A Redis that runs."""
    server = RedisServer(folder, *options, password=password)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()

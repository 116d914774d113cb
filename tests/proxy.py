"""A TCP proxy in front of a server, so that a connection can be cut, fall silent or lose an answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Connections to a server that can fall silent without being closed."""

    def __init__(self) -> None:
        self.port = 0
        self._unanswered = b""
        self._passing: list[asyncio.Event] = []
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def made(self) -> int:
        """How many connections there were."""
        return len(self._passing)

    def swallow_the_answer_to(self, words: bytes) -> None:
        """Let nothing come back any more over the connection on which these are said next."""
        self._unanswered = words

    def silence(self, number: int) -> None:
        """Let nothing come back any more over the connection that was made as that one, from 0 on."""
        self._passing[number].clear()

    def hush(self) -> None:
        """Let nothing come back any more over any connection that there is."""
        for passing in self._passing:
            passing.clear()

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        """Pass on what comes, both ways; close where there is no server."""
        passing = asyncio.Event()
        passing.set()
        self._passing.append(passing)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        self._writers += (writer, back)
        await asyncio.gather(
            self._pass_on(reader, back, passing), self._pass_back(there, writer, passing)
        )

    def cut(self) -> None:
        """Close everything."""
        for writer in self._writers:
            writer.close()
        for passing in self._passing:
            passing.set()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                if self._unanswered and self._unanswered in chunk:
                    self._unanswered = b""
                    passing.clear()
                writer.write(chunk)
        writer.close()

    async def _pass_back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                await passing.wait()
                writer.write(chunk)
        writer.close()


@asynccontextmanager
async def proxy(port: int) -> AsyncGenerator[Proxy, None]:
    """A proxy in front of a port of this machine."""
    between = Proxy()
    handlers: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(between.accept(reader, writer, port)))

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0)
    between.port = listener.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        listener.close()
        between.cut()
        await asyncio.gather(*handlers)

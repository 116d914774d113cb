"""Where metrics are read: a listener of its own that answers `GET /metrics` and nothing else.

It is no part of the gateway, since what it says is for who runs Zene and not for its users, and since a
worker has no gateway. By default only this machine reaches it.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from zene.telemetry.logs import logger
from zene.telemetry.metrics import CONTENT_TYPE, Registry

HEAD_BYTES = 16 << 10
SECONDS = 5.0  # one reader gets
READERS = 16  # at once; a further one is turned away
_CURE = "set metrics_port to another one"

log = logger(__name__)


@asynccontextmanager
async def metrics_served(
    registry: Registry, *, host: str, port: int
) -> AsyncGenerator[str | None, None]:
    """Answer at `host` and `port` (0 takes a free one) and give the address. Where the port is taken that is
    warned of and there is no address: nobody should be without Zene for want of its numbers.
    """
    listener = _Listener(registry)
    try:
        server = await asyncio.start_server(listener.answer, host, port, limit=HEAD_BYTES)
    except OSError as err:
        log.warning("metrics.not_served", host=host, port=port, error=err.strerror, cure=_CURE)
        yield None
        return
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{server.sockets[0].getsockname()[1]}/metrics"
    log.info("metrics.served", url=url)
    try:
        yield url
    finally:
        server.close()
        await listener.close()


class _Listener:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._readers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a coroutine runs in one
        self._readers[task] = writer
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            del self._readers[task]
            writer.close()

    async def close(self) -> None:
        """End every answer that is under way."""
        readers = dict(self._readers)
        for writer in readers.values():
            writer.close()  # which ends them: cancelled, asyncio would log them as failed
        await asyncio.gather(*readers)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        if len(self._readers) > READERS:
            return _message("503 Service Unavailable", "Too many are reading the metrics.\n")
        words = head.partition(b"\r\n")[0].split(b" ")
        if words[:1] != [b"GET"] or len(words) != 3:
            return _message("405 Method Not Allowed", "Only GET is taken.\n")
        if words[1].partition(b"?")[0] != b"/metrics":
            return _message("404 Not Found", "Here is only /metrics.\n")
        return _message("200 OK", await self._registry.read(), CONTENT_TYPE)


def _message(status: str, text: str, kind: str = "text/plain; charset=utf-8") -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body

"""Puts a reply on the wire, well or as badly as its fault says."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from httptools import HttpRequestParser
from msgspec import Struct

from tests.model_server.scripts import Fault


class Reply(Struct, kw_only=True):
    """What to send, in pieces that are flushed one by one where there is a delay or a fault."""

    status: int
    events: Iterable[bytes]
    delay_ms: float = 0
    fault: Fault | None = None
    is_stream: bool = False

    def body(self) -> Iterator[bytes]:
        """The body as the fault leaves it."""
        fault = self.fault
        if fault is None:
            yield from self.events
            return
        if fault.body is not None:
            for part in fault.body:
                yield from part.pieces()
            return
        for event in self.events:
            changed = event
            for old, new in fault.swaps:
                changed = changed.replace(old.encode(), new.encode(errors="surrogateescape"))
            yield changed
        yield fault.append.encode()


# Method, path, headers with lower-case names, body.
ReplyTo = Callable[[str, str, Mapping[str, str], bytes], Reply]


class Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other."""

    def __init__(
        self, reply_to: ReplyTo, opened: "set[Connection]", changed: asyncio.Event
    ) -> None:
        self._reply_to = reply_to
        self._opened = opened
        self._changed = changed
        self._transport: asyncio.Transport | None = None
        self._player: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._begin()

    def _begin(self) -> None:
        self._parser = HttpRequestParser(self)
        self._path = ""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._opened.discard(self)
        self._changed.set()
        self._may_write.set()
        if self._player is not None:
            self._player.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        reply = self._reply_to(method, self._path, self._headers, b"".join(self._body))
        self._path, self._headers, self._body = "", {}, []
        self._changed.set()
        if reply.fault is None and not reply.delay_ms:
            self._send_at_once(reply)
        else:
            self._player = asyncio.get_running_loop().create_task(self._play(reply))

    def hang_up(self) -> "asyncio.Task[None] | None":
        if self._transport is not None:
            self._transport.abort()
        return self._player

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _send_at_once(self, reply: Reply) -> None:
        events = list(reply.body())
        if reply.is_stream:
            framed = b"".join(map(_chunk, events)) + b"0\r\n\r\n"
            return self._write(_head(200, _STREAM) + framed)
        body = b"".join(events)
        kind = {"content-type": "application/json", "content-length": str(len(body))}
        return self._write(_head(reply.status, kind) + body)

    async def _play(self, reply: Reply) -> None:
        fault = reply.fault or Fault()
        if fault.hang_up:
            self.hang_up()
            return None
        headers = {**_STREAM, **fault.headers}
        if not fault.is_chunked:
            headers.pop("transfer-encoding")
        self._write(fault.raw_head.encode() or _head(fault.status, headers))
        frame = _chunk if fault.is_chunked else bytes
        sent = 0
        for data in reply.body():
            for at in range(0, len(data), fault.piece or len(data) or 1):
                piece = data[at : at + (fault.piece or len(data))]
                limit = fault.cut_at if fault.cut_at is not None else fault.stall_at
                if limit is not None and sent + len(piece) >= limit:
                    return await self._break_off(frame, piece[: limit - sent], fault)
                sent += len(piece)
                self._write(frame(piece))
                await self._may_write.wait()
                if self._transport is None or self._transport.is_closing():
                    return None
            await asyncio.sleep(reply.delay_ms / 1000)
        if fault.is_chunked:
            self._write(b"0\r\n\r\n")
        elif self._transport is not None:
            self._transport.close()
        return None

    async def _break_off(self, frame: Any, last: bytes, fault: Fault) -> None:
        if last:
            self._write(frame(last))
        if fault.stall_at is not None:
            await asyncio.Event().wait()
        elif self._transport is not None:
            self._transport.close()


_STREAM = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""

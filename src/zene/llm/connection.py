"""One HTTP/1.1 connection to a provider, parsed in C.

A general HTTP client spends 10 µs on each chunk of a stream, more than all else that Zene does with a token;
this one spends 1 and hands over what arrived together at once. It speaks only what a model call needs: one
POST at a time, its answer read as it comes, the connection kept if the answer ended cleanly.
"""

import asyncio
from collections.abc import Mapping
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from zene.domain.errors import ModelError

HEAD_LIMIT = 64 << 10  # bytes of the status line and headers
IDLE = {"limit": "idle"}
TOTAL = {"limit": "total"}
_HIGH_WATER = 1 << 20  # bytes that may wait unread before the socket is no longer read


def unreachable(what: str, *, retryable: bool = True, unsent: bool = False) -> ModelError:
    """The server cannot be reached or hung up; as a rule the same call may succeed later."""
    return ModelError(
        f"The model's server {what}.", code="model_unreachable", retryable=retryable, unsent=unsent
    )


def bad_response(what: str) -> ModelError:
    """The server does not keep to the format."""
    return ModelError(f"The model's server {what}.", code="model_bad_response")


def too_slow(what: str, limit: Mapping[str, str]) -> ModelError:
    """A time limit is over: `limit` is IDLE or TOTAL."""
    return ModelError(
        f"The model's server {what}.", code="model_timeout", details=limit, retryable=True
    )


class Connection(asyncio.Protocol):
    """A connection with at most one answer on it. `status` and `headers` count once `head` returned.

    `idle_seconds` is the longest silence while somebody waits for bytes, and the longest wait for the whole
    head. Header names are lower-case.
    """

    def __init__(self, idle_seconds: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._idle_seconds = idle_seconds
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._silent_since = 0.0
        self._deadline = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._failure: ModelError | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body: list[bytes] = []
        self._unread = 0
        self._head_bytes = 0
        self._has_head = False
        self._is_whole = False
        self._may_stay = False
        self.headers = {}

    @property
    def is_open(self) -> bool:
        """False once the server or an error has ended the connection."""
        return self._failure is None and self._transport is not None

    @property
    def is_untouched(self) -> bool:
        """Nothing of an answer has arrived."""
        return self._head_bytes == 0

    @property
    def is_reusable(self) -> bool:
        """The answer ended cleanly and the server keeps the connection."""
        return self.is_open and self._is_whole and self._may_stay

    def post(self, head: bytes, body: bytes, *, total_seconds: float) -> None:
        """Send a request whose answer is over, at the latest, after `total_seconds`."""
        if self._has_head:
            self._begin()
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + total_seconds
        self._silent_since = loop.time()
        self._watch = loop.call_later(min(self._idle_seconds, total_seconds), self._look)
        if self._transport is not None:
            self._transport.write(head + body)

    async def head(self) -> int:
        """Wait for the status and headers. Raises ModelError."""
        while not self._has_head:
            await self._more()
        return self.status

    async def read(self) -> bytes:
        """All of the body that has arrived since, at least a byte; empty at its end. Raises ModelError."""
        while not self._body:
            if self._is_whole:
                return b""
            await self._more()
        body = self._body
        chunk = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        if self._unread > _HIGH_WATER and self._transport is not None:
            self._transport.resume_reading()
        self._unread = 0
        return chunk

    def rest(self) -> None:
        """Stop the clock: the answer is over and the connection waits for its next use."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def abort(self) -> None:
        """Break the connection off. Twice is harmless."""
        self.rest()
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        if self._has_head:
            self._silent_since = loop.time()
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        """Fail the call when a limit is over, else look again when one may be."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        is_waiting = self._waiter is not None
        silence_ends = (self._silent_since if is_waiting else now) + self._idle_seconds
        if now >= self._deadline:
            self._fail(too_slow("took longer than a whole call may", TOTAL))
        elif now >= silence_ends:
            self._fail(too_slow(f"was silent for {self._idle_seconds:g} s", IDLE))
        else:
            self._watch = loop.call_at(min(silence_ends, self._deadline), self._look)

    def _fail(self, error: ModelError) -> None:
        if self._failure is None:
            self._failure = error
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once the connection, with its TLS, stands."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; the callbacks below collect it."""
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as err:
            return self._fail(bad_response(f"broke the HTTP protocol: {err}"))
        if not self._has_head and self._head_bytes > HEAD_LIMIT:
            return self._fail(bad_response(f"sent more than {HEAD_LIMIT} bytes of headers"))
        if self._unread > _HIGH_WATER and self._transport is not None:
            self._transport.pause_reading()
        self._wake()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection ends an answer that has neither a length nor chunks."""
        if self._has_head and self._ends_with_connection():
            self._is_whole = True
        reason = f"hung up ({exc})" if exc else "hung up"
        self._fail(unreachable(reason))

    def _ends_with_connection(self) -> bool:
        return "content-length" not in self.headers and "transfer-encoding" not in self.headers

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A second answer on the connection belongs to nobody."""
        if self._is_whole:
            self._fail(bad_response("sent an answer that nothing was asked for"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of two with one name the last."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._body.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was only `100 Continue`."""
        self._is_whole = self._has_head
        self._may_stay = self._parser.should_keep_alive()  # it forgets when this returns


def request_head(path: str, headers: Mapping[str, str]) -> bytes:
    """The request line and headers of a POST. Raises ModelError for what does not fit in a header."""
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise _unusable()
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    except UnicodeEncodeError as err:
        raise _unusable() from err


def _unusable() -> ModelError:
    return ModelError(
        "The model's key or address has characters that no header can carry.",
        code="model_unauthorized",
    )

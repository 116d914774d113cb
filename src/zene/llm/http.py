"""A POST to a model provider, and the events of its answer.

Redirects are not followed, since the key would travel with them; proxies and keys are never taken from
the environment; compression is refused, so that a small answer stays small. Every way in which the
network or the server can fail comes out as a ModelError.
"""

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from zene import telemetry
from zene.domain.errors import ModelError
from zene.llm.connection import (
    IDLE,
    Connection,
    bad_response,
    request_head,
    too_slow,
    unreachable,
)
from zene.llm.refusals import Refused, read_refusal
from zene.llm.sse import EventParser

_REFUSAL_LIMIT = 64 << 10  # bytes of an error's body that are read
_LINGER_SECONDS = 0.25  # how long the end of an answer is waited for, to keep the connection
_LINGER_BYTES = 64 << 10
_KEPT_SECONDS = 30.0  # servers close an unused connection after about a minute


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a provider is, and the key that opens it. A server on one's own machine may need none.

    `api` names one of the interfaces that a maker's servers have; where it is empty the address decides.
    """

    base_url: str
    api_key: str = ""
    api: str = ""

    def __repr__(self) -> str:
        return f"Endpoint(base_url={self.base_url!r})"


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of one model call in seconds, and of the connections that may be open at once.

    `idle_seconds` is the longest silence, also before the headers; `total_seconds` bounds the whole call.
    """

    connect_seconds: float = 10.0
    idle_seconds: float = 60.0
    total_seconds: float = 1800.0
    connections: int = 256


DEFAULT_LIMITS = Limits()


class Exchange:
    """One call under way, its status 200. Close it, also after an error; closing twice is harmless."""

    def __init__(self, client: "Client", connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._parser = EventParser()
        self._is_closed = False

    async def events(self) -> list[bytes] | None:
        """The data of the next events, as many as arrived together; None at the end. Raises ModelError."""
        while chunk := await self._connection.read():
            if events := self._parser.feed(chunk):
                return events
        if self._parser.is_noise:
            raise bad_response("sent what is not a stream of events")
        return None

    async def finish(self) -> None:
        """Wait a moment for the end of an answer that said its last, so that the connection can be kept."""
        if self._connection.is_reusable:
            return
        unwanted = 0
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while unwanted < _LINGER_BYTES and (chunk := await self._connection.read()):
                    unwanted += len(chunk)
        except (TimeoutError, ModelError):
            return

    def close(self) -> None:
        """Keep the connection for the next call if the answer ended cleanly, else break it off."""
        if not self._is_closed:
            self._is_closed = True
            self._client.take_back(self._connection)


class Client:
    """The connections to one provider, made on first use. Closing twice is harmless."""

    def __init__(self, base_url: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._base_url = base_url
        self._kept: list[tuple[float, Connection]] = []
        self._free = asyncio.Semaphore(limits.connections)
        self._trust: ssl.SSLContext | None = None
        self._is_closed = False

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Send the body and wait for the stream to begin. Raises Refused and ModelError."""
        address = _split(self._base_url)
        head = request_head(
            address.path.rstrip("/") + path,
            {
                "host": address.netloc.rpartition("@")[2],
                "content-type": "application/json",
                "content-length": str(len(body)),
                "accept": "text/event-stream",
                "accept-encoding": "identity",
                "user-agent": "zene",
                **telemetry.traceparent(),
                **headers,
            },
        )
        connection = await self._answering(address, head, body)
        exchange = Exchange(self, connection)
        try:
            await _expect_stream(connection)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def take_back(self, connection: Connection) -> None:
        """Called by an exchange when it closes."""
        self._free.release()
        if connection.is_reusable and not self._is_closed:
            connection.rest()
            now = asyncio.get_running_loop().time()
            self._kept.append((now + _KEPT_SECONDS, connection))
        else:
            connection.abort()

    async def close(self) -> None:
        """Break every unused connection off; one in use ends with its exchange."""
        self._is_closed = True
        for _, connection in self._kept:
            connection.abort()
        self._kept.clear()

    async def _answering(self, address: SplitResult, head: bytes, body: bytes) -> Connection:
        """A connection that has answered with a head: a kept one may die first, then a new one is made."""
        await self._admitted()
        connection, was_posted = None, False
        try:
            while True:
                kept = self._kept_connection()
                connection = kept or await self._connected(address)
                connection.post(head, body, total_seconds=self._limits.total_seconds)
                was_posted = True
                try:
                    await connection.head()
                except ModelError:
                    if kept is None or not connection.is_untouched:
                        raise
                else:
                    return connection
        except BaseException as err:
            self._free.release()
            if connection is not None:
                connection.abort()
            if isinstance(err, ModelError) and was_posted:
                err.unsent = False  # over a kept connection that died, and perhaps it got there
            raise

    async def _admitted(self) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                await self._free.acquire()
        except TimeoutError as err:
            under_way = f"has {self._limits.connections} calls of Zene under way"
            raise too_slow(under_way, IDLE) from err

    def _kept_connection(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._kept:
            until, connection = self._kept.pop()
            if now < until and connection.is_open:
                return connection
            connection.abort()
        return None

    async def _connected(self, address: SplitResult) -> Connection:
        loop = asyncio.get_running_loop()
        is_https = address.scheme == "https"
        if is_https and self._trust is None:
            self._trust = ssl.create_default_context()
        port = address.port or (443 if is_https else 80)
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._limits.idle_seconds),
                    address.hostname or "",
                    port,
                    ssl=self._trust if is_https else None,
                )
        except TimeoutError as err:
            limit = self._limits.connect_seconds
            what = f"at {_shown(address)} was not reached within {limit:g} s"
            raise unreachable(what, unsent=True) from err
        except OSError as err:
            is_untrusted = isinstance(err, ssl.SSLCertVerificationError)
            what = f"at {_shown(address)} cannot be reached: {err}"
            raise unreachable(what, retryable=not is_untrusted, unsent=True) from err
        return connection


def _shown(address: SplitResult) -> str:
    """The address without a password that somebody may have put into it."""
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _split(base_url: str) -> SplitResult:
    try:
        address = urlsplit(base_url)
        is_usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        is_usable = False
        address = urlsplit("")
    if not is_usable:
        raise ModelError(
            "The model's address is not an http or https URL. Check its base URL.",
            code="model_unreachable",
            unsent=True,
        )
    return address


async def _expect_stream(connection: Connection) -> None:
    """Raises Refused, with what of the body could be read, unless a stream of events begins."""
    status, headers = connection.status, connection.headers
    if status != 200:
        raise Refused(read_refusal(status, headers, await _start_of(connection)))
    if headers.get("content-encoding", "identity") != "identity":
        raise bad_response("compressed its answer although it was asked not to")
    if headers.get("content-type", "").startswith(("text/html", "application/json")):
        raise Refused(read_refusal(status, headers, await _start_of(connection)))


async def _start_of(connection: Connection) -> bytes:
    body = bytearray()
    try:
        while len(body) < _REFUSAL_LIMIT and (chunk := await connection.read()):
            body += chunk
    except ModelError:
        pass  # the status tells enough
    return bytes(body[:_REFUSAL_LIMIT])

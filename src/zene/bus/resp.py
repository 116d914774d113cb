"""A connection to Redis: commands are pipelined by themselves, and nothing waits where Redis does not read.

On hiredis' parser directly, since a published and a followed event are the bus's most frequent things:
what was sent within one turn of the loop is one write, and a reply costs a call of what asked for it.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
from msgspec import Struct

from zene.domain.errors import SetupError, Unavailable

OUTGOING_BYTES = 8 << 20  # not yet taken by Redis; what comes on top is refused
_FORM = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://…[?ssl_ca_certs=FILE] for TLS"

Reply = Any
Handler = Callable[[Reply], None]


class Address(Struct, frozen=True, kw_only=True):
    """Where a Redis is, and who comes; `shown` is without the password."""

    host: str
    port: int
    database: int
    user: str
    password: str
    tls: ssl.SSLContext | None
    shown: str


def address(url: str) -> Address:
    """The address that a `redis://` or `rediss://` URL says. Raises SetupError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
        database = int(parts.path.strip("/") or 0)
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise SetupError(f"ZENE_BUS is no address of a Redis; it is {_FORM}.") from None
    authority = options.pop("ssl_ca_certs", [None])[-1]
    if options or parts.fragment:
        unknown = ", ".join(options) or f"#{parts.fragment}"
        raise SetupError(f"ZENE_BUS says {unknown}, which nobody knows; it is {_FORM}.")
    return Address(
        host=host,
        port=port,
        database=database,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=_tls(authority) if parts.scheme == "rediss" else None,
        shown=f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{database}",
    )


def _tls(authority: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as err:  # ssl.SSLError among them
        raise SetupError(f"ZENE_BUS: no certificates can be read from {authority}: {err}.") from err


class Connection(asyncio.Protocol):
    """One connection. `lost` is done, with the reason, once it is of no more use. `pushed` gets what Redis
    says unasked on a connection that subscribes; `reads` counts how often anything came.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.pushed: Handler | None = None
        self.reads = 0
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._asked: deque[Handler] = deque()

    @property
    def is_asked(self) -> bool:
        """Whether Redis still owes an answer."""
        return bool(self._asked)

    def send(self, *command: str | bytes | int, then: Handler | None) -> bool:
        """Send a command with this turn of the loop's others; False where Redis is too far behind, or gone.

        `then` gets the reply, an error too; None where the answer comes to `pushed`.
        """
        waiting = self._outgoing_bytes + self._transport.get_write_buffer_size()
        if waiting > OUTGOING_BYTES or self.lost.done():
            return False
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packed)
        self._outgoing_bytes += len(packed)
        if then is not None:
            self._asked.append(then)
        return True

    async def call(self, *command: str | bytes | int) -> Reply:
        """The reply; an error that Redis answers is a value. Raises Unavailable when the connection is lost."""
        answered: asyncio.Future[Reply] = self._loop.create_future()
        if not self.send(*command, then=lambda reply: _set(answered, reply)):
            raise Unavailable("Redis does not take more commands.")
        await asyncio.wait((answered, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise Unavailable(self.lost.result())
        return answered.result()

    def drop(self, reason: str) -> None:
        """Close it at once, without waiting for what Redis does not read."""
        self._transport.abort()
        _set(self.lost, reason)

    async def close(self, seconds: float) -> None:
        """Send what is to be sent, in that time, and close."""
        self._flush()
        self._transport.close()
        await asyncio.wait((self.lost,), timeout=seconds)
        self.drop("closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        _set(self.lost, str(exc or "Redis closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.reads += 1
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError as err:
            self.drop(f"it does not speak Redis' protocol: {err}")

    def _take(self, reply: Reply) -> None:
        if self._asked:
            self._asked.popleft()(reply)
        elif self.pushed is not None:
            self.pushed(reply)
        else:  # before it closes a connection that it does not want, Redis says why
            self.drop(str(reply))

    def _flush(self) -> None:
        packed, self._outgoing, self._outgoing_bytes = self._outgoing, [], 0
        if not self.lost.done():
            self._transport.write(b"".join(packed))


async def connect(to: Address) -> Connection:
    """A connection, before any word has been said. Raises Unavailable, SetupError for a bad certificate."""
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(
            Connection, to.host, to.port, ssl=to.tls, server_hostname=to.host if to.tls else None
        )
    except ssl.SSLCertVerificationError as err:
        raise SetupError(
            f"The certificate of {to.shown} is not to be trusted: {err.verify_message}. Name the "
            "authority that signed it: rediss://…?ssl_ca_certs=FILE."
        ) from err
    except OSError as err:
        raise Unavailable(str(err)) from err
    return connection


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)

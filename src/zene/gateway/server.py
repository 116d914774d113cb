"""Serving the gateway with uvicorn: started when the context is entered, gone when it is left."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from zene.gateway.app import Application
from zene.gateway.connections import CONNECTION, Connection
from zene.gateway.listening import BACKLOG

_GRACE_SECONDS: Final = 10
_IDLE_SECONDS: Final = 75  # a connection without a request; more than load balancers keep theirs
_SEND_BUFFER_BYTES: Final = (
    256 << 10
)  # so that a reader that stopped holds little, and is noticed soon


@asynccontextmanager
async def serving(
    app: Application, listener: socket.socket, *, trusted_proxies: Sequence[str] = ()
) -> AsyncGenerator[str, None]:
    """Serve what listens and give its address. Leaving tells streams to end with their cursor, lets
    requests finish, and closes.

    `trusted_proxies` are addresses and networks whose word on who the client is counts.
    """
    server = _Server(_config(app, trusted_proxies), before_shutdown=app.drain)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await server.started_or_failed.wait()
    try:
        if not running.done():
            host, port = listener.getsockname()[:2]
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.should_exit = True
        await running


def _config(app: Application, trusted_proxies: Sequence[str]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=_Protocol,
        ws="none",
        loop="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        backlog=BACKLOG,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=_IDLE_SECONDS,
    )


class _Server(uvicorn.Server):
    """Says when it listens and before it stops, and leaves signals to whoever runs the process."""

    def __init__(self, config: uvicorn.Config, *, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self.started_or_failed = asyncio.Event()
        self._before_shutdown = before_shutdown

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.started_or_failed.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.started_or_failed.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_shutdown()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(HttpToolsProtocol):
    """Lets an answer see how its connection is, and cut it off; bounds what the kernel holds for it."""

    connection: Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection = Connection(transport, self.flow)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self.connection  # type: ignore[typeddict-unknown-key]

"""The gateway as one ASGI application: HTTP in, events out.

Starlette routes it, msgspec validates: importing FastAPI would cost more time and memory than all the
rest of the gateway, and what it adds here (OpenAPI) is made from the same route table that says who may
call what.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from zene.bus.base import Bus
from zene.domain.errors import NotFound
from zene.domain.ids import Ids
from zene.gateway.files import Files
from zene.gateway.following import Followers
from zene.gateway.meters import Meters
from zene.gateway.middleware import Envelope, Guard
from zene.gateway.parts import Outside, Parts, Terms
from zene.gateway.passwords import Passwords
from zene.gateway.problems import Problems
from zene.gateway.rates import Rate
from zene.gateway.routing import Answers, paths
from zene.gateway.seals import Seal
from zene.gateway.signin import SignIns
from zene.gateway.table import ROUTES
from zene.gateway.ticks import Ticks
from zene.store.base import Store

_DRAINED_SECONDS = 5.0


class Application:
    """The gateway: call it as an ASGI application, with lifespan. Nothing of it is global. `followers` knows who is
    connected.
    """

    def __init__(self, parts: Parts) -> None:
        self.followers = parts.followers
        self._ticks = parts.ticks
        router = Router(
            paths(ROUTES, parts),
            redirect_slashes=False,
            default=_unknown_path,
            lifespan=self._lifespan,
        )
        guarded = Guard(router, hosts=parts.terms.hosts)
        self._app = Envelope(
            Problems(Answers(guarded), parts.meters), new_id=parts.ids.new, meters=parts.meters
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or keep the look at the followed sessions alive."""
        return self._app(scope, receive, send)

    def drain(self) -> None:
        """Be not ready from now on, and let every stream end with its cursor within a second or two."""
        self.followers.draining = True

    async def drained(self) -> None:
        """Wait until nobody follows anything any more, at most a few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAINED_SECONDS):
                await self.followers.gone()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _router: Router) -> AsyncGenerator[None, None]:
        looking = asyncio.gather(self.followers.watch(), self._ticks.run())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking


def create_app(
    *,
    store: Store,
    bus: Bus,
    secret_key: bytes,
    terms: Terms,
    outside: Outside,
) -> Application:
    """Build the gateway. `secret_key` seals what is secret in the store."""
    passwords, seal = Passwords(), Seal(secret_key)
    sign_ins = SignIns(
        store=store,
        seal=seal,
        passwords=passwords,
        clock=outside.clock,
        random_bytes=outside.random_bytes,
    )
    followers, meters = Followers(store, per_user=terms.streams_per_user), Meters(outside.registry)
    meters.streams.ask(lambda: followers.open)
    rate = Rate(time.monotonic, per_second=terms.requests_per_second, burst=terms.request_burst)
    parts = Parts(
        store=store,
        bus=bus,
        files=Files(bus),
        sign_ins=sign_ins,
        passwords=passwords,
        seal=seal,
        followers=followers,
        ticks=Ticks(),
        meters=meters,
        rate=rate,
        terms=terms,
        outside=outside,
        ids=Ids(outside.clock, outside.random_bytes),
    )
    return Application(parts)


async def _unknown_path(scope: Scope, _receive: Receive, _send: Send) -> None:
    if scope["type"] == "http":
        raise NotFound("There is no such thing here, or it belongs to somebody else.")

"""A gateway: what speaks HTTP. Alone it needs the store, the bus and the key, and neither data folder nor sandbox."""

import asyncio
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zene.domain.errors import SetupError
from zene.settings import Settings
from zene.settings.folder import secret_key
from zene.sweeping import GATEWAY_PATIENCE_SECONDS, Sweeping
from zene.wiring import installation, presence
from zene.wiring.parts import (
    Shared,
    check_shared,
    metrics,
    open_model,
    opened_store,
    started_bus,
)

if TYPE_CHECKING:
    from zene.bus.base import Bus
    from zene.gateway.app import Application
    from zene.store.base import Store

NOTICED_SECONDS = 2.0  # that a load balancer gets to see a gateway not ready, before it is gone
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what is listened on, and refused without a proxy or a word


async def serve(settings: Settings, *, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    """Serve in this process until `stop`; then send followers away with their cursor and return.

    `ready` gets the address. Raises SetupError where these settings cannot work.
    """
    from zene.gateway.listening import listening  # noqa: PLC0415

    check_address(settings)
    check_proxies(settings)
    check_shared(settings)
    with listening(settings.host, settings.port) as listener:
        await _serve(settings, listener, stop, ready)


async def _serve(
    settings: Settings, listener: socket.socket, stop: asyncio.Event, ready: Callable[[str], None]
) -> None:
    async with opened_store(settings) as store:
        installation_id = await installation.found(store)
        await check_key(settings, store)
        async with (
            metrics(settings, store) as registry,
            started_bus(settings, installation_id) as bus,
        ):
            shared = Shared(store=store, bus=bus, registry=registry)
            app = build(settings, shared)
            sweeping = asyncio.create_task(
                Sweeping(store, bus, patience_seconds=GATEWAY_PATIENCE_SECONDS).run()
            )
            try:
                async with served(settings, app, listener) as url, announced(bus, app):
                    ready(url)
                    await stop.wait()
                    app.drain()
                    await asyncio.gather(app.drained(), asyncio.sleep(NOTICED_SECONDS))
            finally:
                sweeping.cancel()
                await asyncio.wait((sweeping,))


def build(settings: Settings, shared: Shared, refused: str | None = None) -> "Application":
    """The gateway; `refused` says why nobody may be added."""
    from zene.gateway.app import create_app  # noqa: PLC0415
    from zene.gateway.parts import Outside, Terms  # noqa: PLC0415
    from zene.gateway.shapes import Model  # noqa: PLC0415

    models = [
        Model(id=name, window=open_model(settings, name).info.window) for name in settings.choices()
    ]
    terms = Terms(
        version=version("zene"),
        address=settings.public_url or f"http://{settings.host}:{settings.port}",
        hosts=_hosts(settings),
        models=models,
    )
    return create_app(
        store=shared.store,
        bus=shared.bus,
        secret_key=secret_key(settings),
        terms=terms,
        outside=Outside(users_refused=lambda: refused, registry=shared.registry),
    )


def announced(bus: "Bus", app: "Application") -> AbstractAsyncContextManager[None]:
    """Tell the installation of the gateway."""
    from zene.bus.base import GatewayProcess  # noqa: PLC0415

    own = presence.this_process()

    def look() -> GatewayProcess:
        who = app.followers
        return GatewayProcess(
            name=own.name,
            host=own.host,
            version=own.version,
            started_at=own.started_at,
            draining=who.draining,
            streams=who.open,
            users=who.users,
        )

    return presence.announced(bus, look)


def served(
    settings: Settings, app: "Application", listener: socket.socket
) -> AbstractAsyncContextManager[str]:
    """The gateway at its address, for as long as the context is entered."""
    from zene.gateway.server import serving  # noqa: PLC0415

    return serving(app, listener, trusted_proxies=settings.trusted_proxies)


async def check_key(settings: Settings, store: "Store") -> None:
    """See that the key opens what is sealed in the store, its first signing key made if missing. Raises
    SetupError.
    """
    from zene.gateway.keys import Keys  # noqa: PLC0415
    from zene.gateway.seals import Seal  # noqa: PLC0415

    seal = Seal(secret_key(settings))
    await Keys(store, seal, lambda: time.time_ns() // 1_000_000, secrets.token_bytes).current()


def check_address(settings: Settings) -> None:
    """Off loopback, passwords must not travel in the clear. Raises SetupError."""
    url = settings.public_url or ""
    if settings.allow_insecure_http or url.startswith("https://") or _is_loopback(settings.host):
        return
    raise SetupError(
        f"Passwords sent to {settings.host} over plain HTTP can be read on the way. Put a TLS proxy "
        "in front and set ZENE_PUBLIC_URL=https://…, or set allow_insecure_http = true."
    )


def check_proxies(settings: Settings) -> None:
    """What is no address would silently be trusted by nobody. Raises SetupError."""
    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise SetupError(
                f"ZENE_TRUSTED_PROXIES says {proxy}, which is no address and no network, such as 10.0.0.7 or"
                " 172.30.0.0/24."
            ) from None


def _hosts(settings: Settings) -> frozenset[str]:
    names = {"localhost", "127.0.0.1", "::1", settings.host}
    if settings.public_url:
        names.add(urlsplit(settings.public_url).hostname or "")
    elif settings.host in _ANY_ADDRESS:
        with suppress(
            OSError
        ):  # a machine that does not know its own name has addresses all the same
            name, others, addresses = socket.gethostbyname_ex(socket.gethostname())
            names |= {name, *others, *addresses}
    return frozenset(names)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

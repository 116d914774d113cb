"""Gateway and worker in one process: `zene up`, for one machine."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from zene.domain.errors import SetupError
from zene.sandbox.base import Capabilities
from zene.settings import Settings
from zene.settings.folder import claimed
from zene.wiring import gateway, migrate
from zene.wiring import worker as working
from zene.wiring.parts import Shared, metrics, opened_store, started_bus

if TYPE_CHECKING:
    from zene.store.base import Store


class Ready(Struct, frozen=True, kw_only=True):
    """What a server says of itself when it is ready. `first_password` is set once: when it was made up."""

    url: str
    capabilities: Capabilities
    first_password: str | None


async def serve(settings: Settings, *, stop: asyncio.Event, ready: Callable[[Ready], None]) -> None:
    """Serve in this process until `stop`; then hand running tasks over and return.

    Raises SetupError where this machine or these settings cannot work.
    """
    from zene.gateway.listening import listening  # noqa: PLC0415

    gateway.check_address(settings)
    gateway.check_proxies(settings)
    with claimed(settings.data_dir), listening(settings.host, settings.port) as listener:
        async with opened_store(settings) as store:
            made = await migrate.make(settings, store, make_up_password=False)
            async with (
                metrics(settings, store) as registry,
                started_bus(settings, made.id) as bus,
                working.host(settings, made.id) as here,
            ):
                await _check_users(settings, store, here.sandboxes.capabilities)
                # Last, so that no failed start uses up the password that is shown once.
                _, password = await migrate.first_administrator(
                    settings, store, make_up_password=True
                )
                told = partial(_told, ready, here.sandboxes.capabilities, password)
                shared = Shared(store=store, bus=bus, registry=registry)
                await _both(settings, shared, here, listener, stop, told)


async def _both(
    settings: Settings,
    shared: Shared,
    here: working.Host,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    worker = working.build(settings, shared, here)
    refused = working.users_refused(settings, here.sandboxes.capabilities)
    app = gateway.build(settings, shared, refused)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(worker.run())
        try:
            async with (
                gateway.served(settings, app, listener) as url,
                gateway.announced(shared.bus, app),
                working.announced(shared.bus, worker),
            ):
                ready(url)
                await working.until_stopped(stop, work)
                app.drain()
                await worker.stop()
                await asyncio.wait((work,))
                await app.drained()
        finally:
            await worker.stop()


def _told(
    ready: Callable[[Ready], None], capabilities: Capabilities, password: str | None, url: str
) -> None:
    ready(Ready(url=url, capabilities=capabilities, first_password=password))


async def _check_users(settings: Settings, store: "Store", capabilities: Capabilities) -> None:
    from zene.store import users  # noqa: PLC0415

    count = await store.read(users.count_users)
    refusal = working.users_refused(settings, capabilities)
    if count > 1 and refusal:
        raise SetupError(f"{count} users are registered. {refusal}")

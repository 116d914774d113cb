"""The composition root: settings in, a running gateway and worker out. One process or fifty is decided here.

What a command does not need is imported where it is built: a start takes as long as its imports.
"""

import asyncio
import ipaddress
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from zene.domain.errors import SetupError
from zene.sandbox.base import MEBIBYTE, Capabilities, Limits
from zene.seams import backend
from zene.settings import Settings
from zene.settings.folder import claimed, installation_id, prepared, secret_key
from zene.store.base import Store
from zene.telemetry.metrics import Registry

if TYPE_CHECKING:
    from zene.bus.base import Bus
    from zene.gateway.app import Application
    from zene.llm.base import Provider as ModelProvider
    from zene.sandbox.base import Provider as SandboxProvider
    from zene.worker.worker import Worker
    from zene.workspaces.outputs import Outputs
    from zene.workspaces.workspaces import Workspaces


_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what is listened on, and refused without a proxy or a word


class Ready(Struct, frozen=True, kw_only=True):
    """What a server says of itself when it is ready. `first_password` is set once: when it was made up."""

    url: str
    capabilities: Capabilities
    first_password: str | None


class Parts(Struct, frozen=True, kw_only=True):
    """What gateway and worker of one process share."""

    settings: Settings
    store: Store
    bus: "Bus"
    sandboxes: "SandboxProvider"
    workspaces: "Workspaces"
    outputs: "Outputs"
    registry: Registry


async def serve(settings: Settings, *, ready: Callable[[Ready], None]) -> None:
    """Serve in this process until cancelled; then hand running tasks over and raise CancelledError.

    Raises SetupError where this machine or these settings cannot work.
    """
    stop = asyncio.Event()
    serving = asyncio.create_task(_serve(settings, ready, stop))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        stop.set()
        await serving
        raise


def open_store(settings: Settings) -> Store:
    """The store; to be migrated before use, and closed."""
    prepared(settings.data_dir)
    store: Store = backend("store", settings.store_url)(settings.store_url)
    return store


def open_model(settings: Settings, name: str) -> "ModelProvider":
    """The model of that name, for any number of calls; to be closed. Raises SetupError."""
    from zene.llm import pricing  # noqa: PLC0415
    from zene.llm.http import Endpoint  # noqa: PLC0415
    from zene.llm.retry import Persistent  # noqa: PLC0415

    model = settings.named(name)
    given = pricing.Given(
        window=model.window,
        output_cap=model.max_output_tokens or settings.max_output_tokens,
        input_price=model.input_price,
        cached_price=model.cached_price,
        cache_write_price=model.cache_write_price,
        output_price=model.output_price,
    )
    info = pricing.model_info(model.provider, model.model or name, url=model.url or "", given=given)
    key = model.api_key.reveal() if model.api_key else ""
    endpoint = Endpoint(base_url=model.url or "", api_key=key, api=model.api or "")
    provider: ModelProvider = backend("llm", model.provider)(info, endpoint)
    return Persistent(provider, uniform=random.uniform, sleep=asyncio.sleep)


async def probe_bus(settings: Settings) -> None:
    """See whether the bus can be used, beside a server that may be running. Raises SetupError."""
    bus = _bus(settings, f"probe-{os.getpid()}")
    try:
        await bus.start()
    finally:
        await bus.close()


async def probe_sandboxes(settings: Settings) -> Capabilities:
    """What sandboxes can do here, found out beside a server that may be running. Raises SetupError."""
    sandboxes = _sandboxes(settings, f"probe-{os.getpid()}")
    try:
        await sandboxes.start()
        return sandboxes.capabilities
    finally:
        await sandboxes.close()


def users_refused(settings: Settings, capabilities: Capabilities) -> str | None:
    """Why this installation may not have more than one user; None when it may."""
    if settings.allow_weak_sandbox or not capabilities.missing:
        return None
    caps = "; ".join(f"{cap}: {why}" for cap, why in capabilities.missing.items())
    return (
        f"This machine cannot keep several users apart ({caps}). Mend that, or set "
        "allow_weak_sandbox = true if all of them may harm each other."
    )


async def _serve(settings: Settings, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
    _check_address(settings)
    with claimed(settings.data_dir):
        async with _parts(settings) as parts, _metrics(parts), asyncio.TaskGroup() as group:
            password = await _first_administrator(parts)
            await _check_users(parts)
            worker = _worker(parts)
            working = group.create_task(worker.run())
            stopped = group.create_task(stop.wait())
            try:
                from zene.gateway.server import serving  # noqa: PLC0415

                app = _application(parts)
                async with serving(
                    app,
                    host=settings.host,
                    port=settings.port,
                    trusted_proxies=settings.trusted_proxies,
                ) as url:
                    capabilities = parts.sandboxes.capabilities
                    ready(Ready(url=url, capabilities=capabilities, first_password=password))
                    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                await worker.stop()


@asynccontextmanager
async def _parts(settings: Settings) -> AsyncGenerator[Parts, None]:
    """Everything opened, and closed again in the opposite order."""
    from zene.workspaces.outputs import Outputs  # noqa: PLC0415
    from zene.workspaces.workspaces import Workspaces  # noqa: PLC0415

    folder = settings.data_dir
    store = open_store(settings)
    bus = _bus(settings, installation_id(folder))
    sandboxes = _sandboxes(settings, installation_id(folder))
    workspaces = Workspaces(
        data_dir=folder,
        sandboxes=sandboxes,
        disk_bytes=settings.workspace_mib * MEBIBYTE,
        inodes=settings.workspace_inodes,
        limits=_limits(settings),
    )
    outputs = Outputs(folder / "outputs")
    try:
        await asyncio.gather(store.migrate(), bus.start(), sandboxes.start())
        await workspaces.start()
        yield Parts(
            settings=settings,
            store=store,
            bus=bus,
            sandboxes=sandboxes,
            workspaces=workspaces,
            outputs=outputs,
            registry=Registry(),
        )
    finally:
        await bus.close()
        await sandboxes.close()
        await workspaces.close()
        outputs.close()
        await store.close()


@asynccontextmanager
async def _metrics(parts: Parts) -> AsyncGenerator[None, None]:
    """`/metrics` of this process."""
    from zene.store.census import CensusMeters  # noqa: PLC0415
    from zene.telemetry.listener import metrics_served  # noqa: PLC0415

    settings = parts.settings
    CensusMeters(parts.registry, parts.store, clock=lambda: time.time_ns() // 1_000_000)
    async with metrics_served(
        parts.registry, host=settings.metrics_host, port=settings.metrics_port
    ):
        yield


def _bus(settings: Settings, installation: str) -> "Bus":
    bus: Bus = backend("bus", settings.bus)(settings.bus, installation)
    return bus


def _sandboxes(settings: Settings, installation: str) -> "SandboxProvider":
    provider: SandboxProvider = backend("sandbox", settings.sandbox)(
        installation=installation,
        data_dir=prepared(settings.data_dir),
        spares=settings.warm_sandboxes,
    )
    return provider


def _worker(parts: Parts) -> "Worker":
    from zene.worker.benches import Benches, Host  # noqa: PLC0415
    from zene.worker.desk import Desk, Terms  # noqa: PLC0415
    from zene.worker.meters import Meters  # noqa: PLC0415
    from zene.worker.worker import Worker  # noqa: PLC0415

    settings = parts.settings
    host = Host(
        workspaces=parts.workspaces,
        sandboxes=parts.sandboxes,
        limits=_limits(settings),
        read_only_paths=_read_only(settings),
    )
    terms = Terms(
        slots=settings.slots,
        lease_seconds=settings.lease_seconds,
        drain_seconds=settings.drain_seconds,
        max_active_tasks=settings.max_active_tasks,
        max_steps=settings.max_steps,
        max_work_seconds=settings.max_minutes * 60,
    )
    desk = Desk(
        name=f"{socket.gethostname()}-{secrets.token_hex(4)}",
        store=parts.store,
        bus=parts.bus,
        benches=Benches(host),
        workspaces=parts.workspaces,
        outputs=parts.outputs,
        model=cache(partial(open_model, settings)),
        terms=terms,
        meters=Meters(parts.registry),
    )
    return Worker(desk)


def _application(parts: Parts) -> "Application":
    from zene.gateway.app import create_app  # noqa: PLC0415
    from zene.gateway.parts import Outside, Terms  # noqa: PLC0415
    from zene.gateway.shapes import Model  # noqa: PLC0415

    settings = parts.settings
    models = [
        Model(id=name, window=open_model(settings, name).info.window) for name in settings.choices()
    ]
    terms = Terms(
        version=version("zene"),
        address=settings.public_url or f"http://{settings.host}:{settings.port}",
        hosts=_hosts(settings),
        models=models,
    )
    refused = users_refused(settings, parts.sandboxes.capabilities)
    return create_app(
        store=parts.store,
        bus=parts.bus,
        secret_key=secret_key(settings),
        terms=terms,
        outside=Outside(users_refused=lambda: refused, registry=parts.registry),
    )


async def _first_administrator(parts: Parts) -> str | None:
    """Make the first administrator where there is no user; the password if it had to be made up."""
    from zene.gateway.passwords import Passwords  # noqa: PLC0415
    from zene.store import users  # noqa: PLC0415
    from zene.worker.desk import new_id, now_ms  # noqa: PLC0415

    if await parts.store.read(users.count_users):
        return None
    given = parts.settings.admin_password
    password = given.reveal() if given else secrets.token_urlsafe(15)
    hashed = await Passwords().hash(password)
    email = parts.settings.admin_email.strip().casefold()
    await parts.store.write(users.create_first, new_id("usr"), email, hashed, now_ms())
    return None if given else password


async def _check_users(parts: Parts) -> None:
    from zene.store import users  # noqa: PLC0415

    count = await parts.store.read(users.count_users)
    refusal = users_refused(parts.settings, parts.sandboxes.capabilities)
    if count > 1 and refusal:
        raise SetupError(f"{count} users are registered. {refusal}")


def _limits(settings: Settings) -> Limits:
    return Limits(
        cpus=settings.cpus,
        memory_bytes=settings.sandbox_memory_mib * MEBIBYTE,
        pids=settings.sandbox_pids,
    )


def _read_only(settings: Settings) -> tuple[Path, ...]:
    """The folders that sandboxes see too. Raises SetupError, since no sandbox starts without them."""
    paths = tuple(Path(path) for path in settings.sandbox_read_only_paths)
    for path in paths:
        if not (path.is_absolute() and path.is_dir()):
            raise SetupError(f"sandbox_read_only_paths names {path}, which is no folder here.")
    return paths


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


def _check_address(settings: Settings) -> None:
    """Off loopback, passwords must not travel in the clear. Raises SetupError."""
    url = settings.public_url or ""
    if settings.allow_insecure_http or url.startswith("https://") or _is_loopback(settings.host):
        return
    raise SetupError(
        f"Passwords sent to {settings.host} over plain HTTP can be read on the way. Put a TLS proxy "
        "in front and set ZENE_PUBLIC_URL=https://…, or set allow_insecure_http = true."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

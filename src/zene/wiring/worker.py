"""A worker: what runs tasks, with its sandboxes and workspaces. Alone it serves gateways elsewhere."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from zene.domain.errors import SetupError
from zene.sandbox.base import MEBIBYTE, Capabilities, Limits
from zene.seams import backend
from zene.settings import Settings
from zene.settings.folder import check_marker, claimed, home, marker, prepared
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
    from zene.sandbox.base import Provider
    from zene.worker.worker import Worker
    from zene.workspaces.outputs import Outputs
    from zene.workspaces.workspaces import Workspaces


class Host(Struct, frozen=True, kw_only=True):
    """What a process has that can run commands and keep files."""

    sandboxes: "Provider"
    workspaces: "Workspaces"
    outputs: "Outputs"


async def serve(
    settings: Settings, *, stop: asyncio.Event, ready: Callable[[str, Capabilities], None]
) -> None:
    """Work in this process until `stop`; then hand running tasks over and return.

    `ready` gets the worker's name. Raises SetupError where this machine or these settings cannot work.
    """
    check_shared(settings)
    async with opened_store(settings) as store:
        installation_id = await installation.found(store)
        check_marker(settings.data_dir, marker(settings.data_dir), installation_id)
        with claimed(settings.data_dir, shared=True):
            async with (
                metrics(settings, store) as registry,
                started_bus(settings, installation_id) as bus,
                host(settings, installation_id) as here,
            ):
                # Any gateway may add a user at any time.
                if refusal := users_refused(settings, here.sandboxes.capabilities):
                    raise SetupError(refusal)
                worker = build(settings, Shared(store=store, bus=bus, registry=registry), here)
                async with announced(bus, worker), asyncio.TaskGroup() as group:
                    told = partial(ready, worker.name, here.sandboxes.capabilities)
                    working = group.create_task(worker.run(told))
                    await until_stopped(stop, working)
                    await worker.stop()


def announced(bus: "Bus", worker: "Worker") -> AbstractAsyncContextManager[None]:
    """Tell the installation of the worker."""
    from zene.bus.base import WorkerProcess  # noqa: PLC0415

    own = presence.this_process(worker.name)

    def look() -> WorkerProcess:
        return WorkerProcess(
            name=own.name,
            host=own.host,
            version=own.version,
            started_at=own.started_at,
            draining=worker.is_draining,
            slots=worker.slots,
            running=worker.running,
        )

    return presence.announced(bus, look)


async def until_stopped(stop: asyncio.Event, working: "asyncio.Task[None]") -> None:
    """Wait for `stop`, or for a worker that ends by itself."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        await asyncio.wait((stopped,))


@asynccontextmanager
async def host(settings: Settings, installation_id: str) -> AsyncGenerator[Host, None]:
    """Sandboxes and workspaces, started, and closed again in the opposite order."""
    from zene.workspaces.outputs import Outputs  # noqa: PLC0415
    from zene.workspaces.workspaces import Workspaces  # noqa: PLC0415

    sandboxes = _sandboxes(settings, installation_id)
    try:
        await sandboxes.start()
        workspaces = Workspaces(
            data_dir=settings.data_dir,
            sandboxes=sandboxes,
            disk_bytes=settings.workspace_mib * MEBIBYTE,
            inodes=settings.workspace_inodes,
            limits=_limits(settings),
        )
        await workspaces.start()
        outputs = Outputs(settings.data_dir / "outputs")
        try:
            yield Host(sandboxes=sandboxes, workspaces=workspaces, outputs=outputs)
        finally:
            outputs.close()
            await sandboxes.close()  # before the folders that they show
            await workspaces.close()
    finally:
        await sandboxes.close()


def build(settings: Settings, shared: Shared, here: Host) -> "Worker":
    """The worker, to be run."""
    from zene.worker.benches import Benches  # noqa: PLC0415
    from zene.worker.benches import Host as BenchHost  # noqa: PLC0415
    from zene.worker.desk import Desk, Terms  # noqa: PLC0415
    from zene.worker.meters import Meters  # noqa: PLC0415
    from zene.worker.roll import Roll  # noqa: PLC0415
    from zene.worker.worker import Worker  # noqa: PLC0415

    benches = BenchHost(
        workspaces=here.workspaces,
        sandboxes=here.sandboxes,
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
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    desk = Desk(
        name=name,
        home=home(settings.data_dir),
        roll=Roll(settings.data_dir / "workers", name),
        store=shared.store,
        bus=shared.bus,
        benches=Benches(benches),
        workspaces=here.workspaces,
        outputs=here.outputs,
        model=cache(partial(open_model, settings)),
        terms=terms,
        meters=Meters(shared.registry),
    )
    return Worker(desk)


async def probe_sandboxes(settings: Settings) -> Capabilities:
    """What sandboxes can do here, found out beside a server that may be running. Raises SetupError."""
    sandboxes = _sandboxes(settings, f"probe-{os.getpid()}")
    try:
        await sandboxes.start()
        return sandboxes.capabilities
    finally:
        await sandboxes.close()


def users_refused(settings: Settings, capabilities: Capabilities) -> str | None:
    """Why this machine may not serve more than one user; None when it may."""
    if settings.allow_weak_sandbox or not capabilities.missing:
        return None
    caps = "; ".join(f"{cap}: {why}" for cap, why in capabilities.missing.items())
    return (
        f"This machine cannot keep several users apart ({caps}). Mend that, or set "
        "allow_weak_sandbox = true if all of them may harm each other."
    )


def _sandboxes(settings: Settings, installation_id: str) -> "Provider":
    provider: Provider = backend("sandbox", settings.sandbox)(
        installation=installation_id,
        data_dir=prepared(settings.data_dir),
        spares=settings.warm_sandboxes,
    )
    return provider


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

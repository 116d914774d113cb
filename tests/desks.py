"""What a worker is built from, in a test: a real store and real sandboxes in a folder, with a model that says what it is told to."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from zene.bus.base import Bus
from zene.llm.base import Provider
from zene.sandbox.bwrap import BubblewrapProvider
from zene.store.sqlite import SqliteStore
from zene.telemetry.metrics import Registry
from zene.worker.benches import Benches, Host
from zene.worker.desk import Desk, Terms
from zene.worker.meters import Meters
from zene.worker.roll import Roll
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspaces


@asynccontextmanager
async def a_desk(
    folder: Path, bus: Bus, model: Provider, disk: type[Workspaces] = Workspaces
) -> AsyncGenerator[Desk, None]:
    """A worker's desk; closes the bus, too."""
    async with AsyncExitStack() as stack:
        store = SqliteStore(f"sqlite:///{folder / 'zene.db'}")
        await store.migrate()
        stack.push_async_callback(store.close)
        installation = f"test-{uuid.uuid4().hex[:12]}"
        sandboxes = BubblewrapProvider(installation=installation, data_dir=folder)
        await sandboxes.start()
        stack.push_async_callback(sandboxes.close)
        workspaces = disk(data_dir=folder, sandboxes=sandboxes, disk_bytes=None)
        await workspaces.start()
        stack.push_async_callback(workspaces.close)
        outputs = Outputs(folder / "outputs")
        stack.callback(outputs.close)
        stack.push_async_callback(bus.close)
        yield Desk(
            name="one",
            home="here",
            roll=Roll(folder / "workers", "one"),
            store=store,
            bus=bus,
            benches=Benches(Host(workspaces=workspaces, sandboxes=sandboxes)),
            workspaces=workspaces,
            outputs=outputs,
            model=lambda _: model,
            terms=Terms(),
            meters=Meters(Registry()),
        )

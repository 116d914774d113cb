"""A worker on a real store and real sandboxes, where a test decides how fast its bus is."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from tests.scripted import Scripted, call, says
from zene.bus.base import Live
from zene.bus.memory import MemoryBus
from zene.sandbox.bwrap import BubblewrapProvider
from zene.store import approvals
from zene.store.sqlite import SqliteStore
from zene.telemetry.metrics import Registry
from zene.worker.benches import Benches, Host
from zene.worker.desk import Desk, Terms, now_ms
from zene.worker.meters import Meters
from zene.worker.worker import Worker
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspaces


class SlowBus(MemoryBus):
    """A bus that takes its time over the news that a task waits, until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()

    async def publish(self, session_id: str, events: Sequence[Live]) -> None:
        if any(event.type == "task.waiting" for event in events):
            self.waiting.set()
            await self.go_on.wait()
        await super().publish(session_id, events)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk, None]:
    async with AsyncExitStack() as stack:
        store = SqliteStore(f"sqlite:///{tmp_path / 'zene.db'}")
        await store.migrate()
        stack.push_async_callback(store.close)
        installation = f"test-{uuid.uuid4().hex[:12]}"
        sandboxes = BubblewrapProvider(installation=installation, data_dir=tmp_path)
        await sandboxes.start()
        stack.push_async_callback(sandboxes.close)
        workspaces = Workspaces(data_dir=tmp_path, sandboxes=sandboxes, disk_bytes=None)
        await workspaces.start()
        stack.push_async_callback(workspaces.close)
        outputs = Outputs(tmp_path / "outputs")
        stack.callback(outputs.close)
        bus = SlowBus()
        stack.push_async_callback(bus.close)
        model = Scripted(says(call("shell", command="echo once")), says("Done."))
        yield Desk(
            name="one",
            store=store,
            bus=bus,
            benches=Benches(Host(workspaces=workspaces, sandboxes=sandboxes)),
            workspaces=workspaces,
            outputs=outputs,
            model=lambda _: model,
            terms=Terms(),
            meters=Meters(Registry()),
        )


async def test_a_task_may_be_claimed_again_before_its_last_run_has_quite_ended(desk: Desk) -> None:
    assert isinstance(desk.bus, SlowBus)
    world, worker = World(desk.store), Worker(desk)
    world.now = now_ms()
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        task = await world.submit(await world.session(await world.user(), "ask_always"))
        await desk.bus.wake()
        await desk.bus.waiting.wait()
        [[asked], _] = await desk.store.read(
            approvals.list_approvals, task.user_id, "pending", None, 2
        )
        await desk.store.write(
            approvals.decide,
            task.user_id,
            asked.id,
            decision="allow",
            scope="once",
            note="",
            now=now_ms(),
        )
        await desk.bus.wake()
        while (await world.task(task)).status != "finished" and not running.done():
            await desk.bus.wake()  # and so let others have their turn
        desk.bus.go_on.set()
        await worker.stop()
        await running
    assert (await world.task(task)).outcome == "succeeded"

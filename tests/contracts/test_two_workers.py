"""Two workers on one data folder: what one of them has open keeps no task and no reader of the other waiting."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from tests.scripted import Scripted, call, says
from zene.bus.memory import MemoryBus
from zene.domain.sessions import Session
from zene.domain.tasks import Task
from zene.gateway.files import Files
from zene.sandbox.base import MEBIBYTE
from zene.sandbox.bwrap import BubblewrapProvider
from zene.store import log
from zene.store.sqlite import SqliteStore
from zene.telemetry.metrics import Registry
from zene.worker.benches import Benches, Host
from zene.worker.desk import Desk, Terms, now_ms
from zene.worker.meters import Meters
from zene.worker.roll import Roll
from zene.worker.worker import Worker
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspaces

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting an image needs root")


class Two:
    """One worker that takes no tasks, and one that does; gateways' files."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.bus = MemoryBus()
        self.store = SqliteStore(f"sqlite:///{folder / 'zene.db'}")
        self.world = World(self.store)
        self.files = Files(self.bus)

    async def begin(self) -> Session:
        await self.store.migrate()
        self._stack.push_async_callback(self.store.close)
        self._stack.push_async_callback(self.bus.close)
        self.world.now = now_ms()
        self.idle = await self._worker("idle", slots=0)
        self.busy = await self._worker("busy", slots=1)
        return await self.world.session(await self.world.user())

    async def ends(self, task: Task) -> str:
        """What the task's call printed, once it has succeeded."""
        while (await self.world.task(task)).status != "finished":
            await self.bus.wakened(0.05)
            await self.bus.wake()
        assert (await self.world.task(task)).outcome == "succeeded"
        events, _ = await self.store.read(log.read_events, task.user_id, task.session_id, 0, 500)
        return "".join(
            bytes(event.data).decode() for event in events if event.type == "item.completed"
        )

    async def _worker(self, name: str, slots: int) -> Desk:
        sandboxes = BubblewrapProvider(
            installation=f"test-{uuid.uuid4().hex[:12]}", data_dir=self._folder
        )
        await sandboxes.start()
        self._stack.push_async_callback(sandboxes.close)
        workspaces = Workspaces(
            data_dir=self._folder, sandboxes=sandboxes, disk_bytes=96 * MEBIBYTE, inodes=8192
        )
        await workspaces.start()
        self._stack.push_async_callback(workspaces.close)
        outputs = Outputs(self._folder / "outputs")
        self._stack.callback(outputs.close)
        model = Scripted(says(call("shell", command="cat kept.txt")), says("Done."))
        desk = Desk(
            name=name,
            home="here",
            roll=Roll(self._folder / "workers", name),
            store=self.store,
            bus=self.bus,
            benches=Benches(Host(workspaces=workspaces, sandboxes=sandboxes)),
            workspaces=workspaces,
            outputs=outputs,
            model=lambda _: model,
            terms=Terms(slots=slots),
            meters=Meters(Registry()),
        )
        await self._stack.enter_async_context(_running(Worker(desk)))
        return desk


@asynccontextmanager
async def _running(worker: Worker) -> AsyncIterator[None]:
    ready = asyncio.Event()
    running = asyncio.create_task(worker.run(ready.set))
    await ready.wait()
    try:
        yield
    finally:
        await worker.stop()
        await running


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        yield Two(stack, tmp_path)


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_task_goes_on_where_another_worker_has_the_workspace_open(two: Two) -> None:
    session = await two.begin()
    async with two.idle.benches.use(session, 0) as bench:
        await bench.write("kept.txt", b"by the other")
        await bench.warm_up()
    task = await two.world.submit(session)
    await two.bus.wake()
    assert "by the other" in await two.ends(task)
    assert two.idle.workspaces.holds(session.id)
    assert two.busy.workspaces.holds(session.id)
    listing = await two.files.list(session, "", cursor=None, limit=10)
    assert [entry.name for entry in listing.items] == ["kept.txt"]


async def test_a_slow_reader_and_a_task_do_not_disturb_each_other(two: Two) -> None:
    session = await two.begin()
    await two.files.write(session, "kept.txt", one(b"by a person"), limit=50)
    await two.files.write(session, "big", one(bytes(4 << 20)), limit=8 << 20)
    content = two.files.stream(session, "big")
    first = await anext(content)
    assert two.idle.workspaces.holds(session.id), "the first that is there is asked"
    task = await two.world.submit(session)
    await two.bus.wake()
    assert "by a person" in await two.ends(task)
    assert first + b"".join([chunk async for chunk in content]) == bytes(4 << 20)

"""A worker on a real store and real sandboxes, where a test decides how fast its bus is."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.contracts.store.world import World
from tests.desks import a_desk
from tests.scripted import Scripted, call, says
from zene.bus.base import Live
from zene.bus.memory import MemoryBus
from zene.store import approvals, tasks
from zene.worker.desk import Desk, now_ms
from zene.worker.roll import Roll
from zene.worker.worker import Worker
from zene.workspaces.front import Front
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


class CancellingBus(MemoryBus):
    """A bus on which somebody cancels the task as its first call ends, and whose word of that is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.cancel: Callable[[], Awaitable[object]] | None = None

    async def publish(self, session_id: str, events: Sequence[Live]) -> None:
        await super().publish(session_id, events)
        ends = any(event.completes and b'"kind":"command"' in event.body for event in events)
        if ends and self.cancel is not None:
            cancel, self.cancel = self.cancel, None
            await cancel()


class FaultyRoll(Roll):
    """A roll that can be read at the start, and then not for two times."""

    reads = 0

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.was_read = threading.Event()

    def dead(self) -> list[str]:
        self.reads += 1
        if self.reads in (2, 3):
            raise OSError(errno.EIO, "the disk failed")
        if self.reads > 3:
            self.was_read.set()
        return super().dead()


class FaultyDisk(Workspaces):
    """Workspaces on a disk that fails at the first look."""

    faults = 1

    async def begins_with(self, session_id: str, project_id: str | None = None) -> Front | None:
        if self.faults > 0:
            self.faults -= 1
            raise OSError(errno.EIO, "the disk failed")
        return await super().begins_with(session_id, project_id)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    model = Scripted(says(call("shell", command="echo once")), says("Done."))
    async with a_desk(tmp_path, SlowBus(), model) as made:
        yield made


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


async def test_what_a_task_left_running_ends_with_it_when_only_the_store_knows_of_the_cancel(
    tmp_path: Path,
) -> None:
    model = Scripted(
        says(call("shell", command="setsid -f sleep 613 </dev/null >/dev/null 2>&1")),
        says("I have done it."),
        says(call("shell", command="cat /proc/[0-9]*/cmdline | tr '\\0' ' '")),
        says("Done."),
    )
    bus = CancellingBus()
    async with a_desk(tmp_path, bus, model) as desk, asyncio.timeout(30):
        world, worker = World(desk.store), Worker(desk)
        world.now = now_ms()
        running = asyncio.create_task(worker.run())
        session = await world.session(await world.user())
        first = await world.submit(session)
        bus.cancel = partial(
            desk.store.write, tasks.request_cancel, first.user_id, first.id, now_ms()
        )
        second = await world.submit(session)
        await bus.wake()
        while (await world.task(second)).status != "finished" and not running.done():
            await bus.wakened(0.1)
        await worker.stop()
        await running
        outcomes = [(await world.task(task)).outcome for task in (first, second)]
        left, seen = [
            bytes(event.data)
            for event in await world.log(session.id)
            if event.type == "item.completed" and b'"kind":"command"' in bytes(event.data)
        ]
    assert outcomes == ["cancelled", "succeeded"]
    assert b'"status":"succeeded"' in left
    assert b"cat " in seen
    assert b"sleep 613" not in seen


async def test_a_run_that_breaks_ends_no_other_and_is_taken_up_again(tmp_path: Path) -> None:
    bus, model = MemoryBus(), Scripted(says("Hello."))
    async with a_desk(tmp_path, bus, model, FaultyDisk) as made, asyncio.timeout(30):
        desk = replace(made, terms=replace(made.terms, lease_seconds=1.5))
        world, worker = World(desk.store), Worker(desk)
        world.now = now_ms()
        running = asyncio.create_task(worker.run())
        task = await world.submit(await world.session(await world.user()))
        await bus.wake()
        while (await world.task(task)).status != "finished" and not running.done():
            await bus.wakened(0.1)
        await worker.stop()
        await running
        ended = await world.task(task)
    assert (ended.outcome, ended.attempt) == ("succeeded", 2)


async def test_a_look_that_breaks_is_made_again(tmp_path: Path) -> None:
    async with a_desk(tmp_path, MemoryBus(), Scripted()) as desk, asyncio.timeout(20):
        roll = FaultyRoll(tmp_path / "workers", "one")
        worker = Worker(replace(desk, roll=roll))
        running = asyncio.create_task(worker.run())
        assert await asyncio.to_thread(roll.was_read.wait, 15)
        assert not running.done()
        await worker.stop()
        await running

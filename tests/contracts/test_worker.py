"""A worker on a real store and real sandboxes, where a test decides how fast its bus is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from tests.desks import a_desk
from tests.scripted import Scripted, call, says
from zene.bus.base import Live
from zene.bus.memory import MemoryBus
from zene.store import approvals
from zene.worker.desk import Desk, now_ms
from zene.worker.worker import Worker


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

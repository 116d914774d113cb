"""A worker that takes over what a dead one had, and one that finds out that it was taken for dead."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from tests.desks import a_desk
from tests.scripted import Scripted, says
from zene.bus.memory import MemoryBus
from zene.domain.errors import LeaseLost, NotFound
from zene.sandbox.base import Command
from zene.worker.benches import Bench
from zene.worker.desk import Desk, now_ms
from zene.worker.tenure import HeldBench, Tenure
from zene.worker.worker import Worker

SECONDS = 10.0  # less than the fifteen that the dead worker's lease still lasts


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path, MemoryBus(), Scripted(says("Done."))) as made:
        yield made


@pytest.fixture
async def bench(desk: Desk) -> AsyncIterator[Bench]:
    """The bench of a session, with its workspace open and no sandbox."""
    world = World(desk.store)
    session = await world.session(await world.user())
    async with desk.benches.use(session, 1) as made:
        await made.open()
        yield made
    await desk.benches.close()


async def test_what_a_dead_worker_had_goes_on_before_its_lease_ends(
    desk: Desk, tmp_path: Path
) -> None:
    world = World(desk.store)
    world.now = now_ms()
    task = await world.submit(await world.session(await world.user()))
    assert await world.claim(worker="dead")
    roll = tmp_path / "workers"
    await asyncio.to_thread(roll.mkdir)
    await asyncio.to_thread((roll / "dead").touch)
    worker = Worker(desk)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(SECONDS):
        while (await world.task(task)).status != "finished":
            await desk.bus.wakened(0.1)
            await desk.bus.wake()
    await worker.stop()
    await running
    assert (await world.task(task)).attempt == 2
    assert not await asyncio.to_thread((roll / "dead").exists)


async def test_nothing_is_done_for_a_task_whose_lease_has_run_out(bench: Bench) -> None:
    held = HeldBench(bench, Tenure(time.monotonic() - 10, 10.0))
    with pytest.raises(LeaseLost):
        await held.write("x", b"late")
    with pytest.raises(LeaseLost):
        async for _ in held.run(Command(argv=("/bin/sh", "-c", "echo late > /workspace/x"))):
            pass
    with pytest.raises(NotFound):
        await bench.read("x", 10)
    assert not bench.is_ready

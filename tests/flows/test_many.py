"""Many gateways and workers: any gateway serves any session, and whatever ends a worker, its tasks go on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.redis_server import redis_server
from tests.servers import SECONDS, says, served_by
from zene.domain.processes import Processes

SHELL = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun"})
FOR_EVER = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 600"})


@pytest.fixture
async def many(tmp_path: Path, model: ModelServer) -> AsyncIterator[Many]:
    """An installation, not made yet."""
    async with (
        redis_server(tmp_path) as redis,
        Many(tmp_path, served_by(model, ZENE_BUS=redis.url)) as installation,
    ):
        yield installation


async def test_a_task_is_submitted_here_followed_there_and_cancelled_elsewhere(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(
        answers_to={
            "short": [Answer(calls=[SHELL]), Answer(text="Done.")],
            "long": [Answer(calls=[FOR_EVER])],
        }
    )
    await many.make(gateways=3, workers=2)
    log, task = await many.begin("short", gateway=0)
    there = await many.seen_at(log, 1)
    await there.live(says("task.finished", outcome="succeeded"))
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    log, task = await many.begin("long", gateway=0)
    there = await many.seen_at(log, 1)
    await there.live(says("item.delta", kind="command", text="begun"))
    await (await many.client(2)).cancel(task)
    assert (await there.finished(task, 5))["outcome"] == "cancelled"
    await there.check()


async def test_an_administrator_sees_every_process_and_soon_which_has_died(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER])] * 2)
    await many.make(gateways=2, workers=2)
    log, task = await many.begin(gateway=0)
    holder = await many.holder(log)
    [other] = [worker.name for worker in many.workers if worker is not holder]
    here, elsewhere = await many.client(0), await many.client(1)
    following = asyncio.create_task((await many.seen_at(log, 1)).live(says("task.finished")))

    async def seen(is_so: Callable[[Processes], object]) -> Processes:
        """What the first gateway says, once it is so."""
        async with asyncio.timeout(SECONDS):
            while not is_so(found := await here.workers()):
                pass
        return found

    def busy(found: Processes) -> object:
        return [each for each in found.workers if each.running] and any(
            each.streams for each in found.gateways
        )

    found = await seen(busy)
    workers = {each.name: each for each in found.workers}
    assert workers.keys() == {worker.name for worker in many.workers}
    assert (workers[holder.name].leases, workers[holder.name].running) == (1, 1)
    assert (workers[other].leases, workers[other].running, workers[other].slots) == (0, 0, 25)
    assert sorted((each.streams, each.users) for each in found.gateways) == [(0, 0), (1, 1)]
    versions = {each.version for each in found.workers} | {each.version for each in found.gateways}
    assert versions == {version("zene")}
    await holder.kill()
    await seen(lambda found: [w.name for w in found.workers if w.present] == [other])
    found = await seen(lambda found: found.workers[0].running)
    assert [(each.name, each.leases) for each in found.workers] == [(other, 1)]
    await elsewhere.cancel(task)
    await following

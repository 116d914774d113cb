"""Many gateways and workers: any gateway serves any session, and whatever ends a worker, its tasks go on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.redis_server import redis_server
from tests.servers import says, served_by

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

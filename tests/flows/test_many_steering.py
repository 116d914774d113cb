"""A word, and a task that cannot wait, from any gateway to whichever worker has the session."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.postgres_server import PostgresServer
from tests.redis_server import redis_server
from tests.servers import Log, says, served_by

FOR_EVER = Call(name="shell", arguments={"command": "echo begun; sleep 600"})
DONE = Answer(text="Done.")


@pytest.fixture
async def many(tmp_path: Path, model: ModelServer, postgres: PostgresServer) -> AsyncIterator[Many]:
    """An installation on PostgreSQL and Redis, not made yet."""
    async with postgres.bare_database() as name, redis_server(tmp_path) as redis:
        variables = served_by(model, ZENE_BUS=redis.url, ZENE_STORE=postgres.url(name))
        async with Many(tmp_path, variables) as installation:
            yield installation


def said(log: Log) -> list[str]:
    """What the user said, as the log has it."""
    return [one["text"] for one in log.of("item.completed") if one["kind"] == "user_message"]


async def test_what_is_said_elsewhere_outlives_the_worker_and_is_heard_once(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER]), DONE], takes_steering=True)
    await many.make(gateways=2, workers=2)
    log, task = await many.begin(gateway=0)
    await log.live(says("item.delta", kind="command", text="begun"))
    await (await many.client(1)).steer(task, "Be brief.")
    await (await many.holder(log)).kill()
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    assert said(log) == ["Go.", "Be brief."]
    assert [each.body.count("Be brief.") for each in model.requests] == [0, 1]


async def test_an_interrupt_elsewhere_ends_what_is_worked_on(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[DONE], answers_to={"Go.": [Answer(calls=[FOR_EVER])]})
    await many.make(gateways=2, workers=2)
    log, task = await many.begin(gateway=0)
    await log.live(says("item.delta", kind="command", text="begun"))
    there = await many.client(1)
    behind = (await there.submit(log.session_id, "After that.")).id
    urgent = (await there.submit(log.session_id, "Now.", on_busy="interrupt")).id
    assert (await log.finished(task, 5))["outcome"] == "cancelled"
    for each in (urgent, behind):
        assert (await log.finished(each))["outcome"] == "succeeded"
    await log.check()
    started = [event.task_id for event in log.events if event.type == "task.started"]
    assert started == [task, urgent, behind]

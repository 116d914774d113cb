"""Gateways and workers on PostgreSQL: whatever becomes of the server costs a delay, and nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.postgres_server import PostgresServer, postgres_server
from tests.proxy import Proxy, proxy
from tests.redis_server import redis_server
from tests.servers import says, served_by
from zene.domain.events import Event

SHELL = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun"})
SLOW = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 3"})


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that may be ended; nobody else's."""
    with postgres_server() as own:
        yield own


@pytest.fixture
async def between(server: PostgresServer) -> AsyncIterator[Proxy]:
    """What stands between the processes and the server."""
    async with proxy(server.port) as opened:
        yield opened


@pytest.fixture
async def many(
    tmp_path: Path, model: ModelServer, server: PostgresServer, between: Proxy
) -> AsyncIterator[Many]:
    """An installation, not made yet."""
    async with server.bare_database() as name, redis_server(tmp_path) as redis:
        store = server.url(name, between.port)
        variables = served_by(model, ZENE_BUS=redis.url, ZENE_STORE=store, ZENE_LEASE_SECONDS="15")
        async with Many(tmp_path, variables) as installation:
            yield installation


def begins(step: int, event: Event) -> bool:
    return event.type == "step.started" and event.step == step


async def test_many_processes_make_and_share_one_installation(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SHELL]), Answer(text="Done.")])
    ended = await asyncio.gather(*(many.person("migrate") for _ in range(3)))
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    await many.make(gateways=2, workers=2)
    for number in range(2):
        await many.client(number)
    begun = await asyncio.gather(*(many.begin(gateway=n % 2) for n in range(6)))
    for log, task in begun:
        assert (await log.finished(task))["outcome"] == "succeeded"
        await log.check()
        await log.ran_once()
    code, out, err = await many.person("doctor")
    assert "postgresql://postgres@127.0.0.1" in out, (code, out, err)


async def test_a_server_that_is_away_for_a_while_costs_a_delay(
    many: Many, model: ModelServer, server: PostgresServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SLOW]), Answer(text="Done.")])
    await many.make(gateways=1, workers=2)
    log, task = await many.begin()
    await log.live(says("item.delta", kind="command", text="begun"))
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    await log.ran_once()


async def test_commits_whose_answers_are_lost_do_nothing_twice(
    many: Many, model: ModelServer, between: Proxy
) -> None:
    model.scripts["*"] = Script(answers=[*[Answer(calls=[SHELL])] * 3, Answer(text="Done.")])
    await many.make(gateways=1, workers=1)
    log, task = await many.begin()
    for step in (1, 2, 3):
        between.swallow_the_answer_to(b"COMMIT")
        await log.until(partial(begins, step))
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    assert [call["status"] for call in log.calls()] == ["succeeded"] * 3
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\n" * 3

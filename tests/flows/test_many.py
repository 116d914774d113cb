"""Many gateways and workers: any gateway serves any session, and whatever ends a worker, its tasks go on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from random import randrange

import pytest

from tests.flows.test_cancel import all_ending
from tests.many import Many
from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.postgres_server import PostgresServer
from tests.redis_server import redis_server
from tests.servers import SECONDS, Log, says, served_by
from zene.domain.processes import Processes

WORDS = "one two three four five six seven eight nine ten " * 4
SLOW = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 0.3"})
SHELL = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun"})
FOR_EVER = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 600"})
# A dead process is known at once: less than the lease of these installations, so that waiting for one shows.
AT_ONCE_SECONDS = 20.0
LONG_LEASE = "40"


@pytest.fixture
async def on_postgres(
    tmp_path: Path, model: ModelServer, postgres: PostgresServer
) -> AsyncIterator[Many]:
    """An installation, not made yet, whose store no process can lock for all by standing still."""
    async with redis_server(tmp_path) as redis, postgres.bare_database() as database:
        variables = served_by(model, ZENE_BUS=redis.url, ZENE_STORE=postgres.url(database))
        async with Many(tmp_path, variables) as installation:
            yield installation


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


async def appended(log: Log, count: int) -> None:
    """Every call appended its number once where it succeeded, and once at most where it was interrupted."""
    lines = (await log.client.read_file(log.session_id, "log.txt")).decode().split()
    assert sorted(lines) == sorted(set(lines))
    calls = log.calls()
    assert len(calls) == count
    sure = {one["arguments"]["command"].split()[1] for one in calls if one["status"] == "succeeded"}
    assert sure <= set(lines)
    assert len(sure) >= count - 1


async def test_a_killed_workers_tasks_go_on_elsewhere_without_waiting_for_its_leases(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SLOW]), Answer(text=WORDS, delay_ms=5)])
    many.person.variables = {**many.person.variables, "ZENE_LEASE_SECONDS": LONG_LEASE}
    await many.make(gateways=2, workers=2)
    begun = [await many.begin(gateway=n % 2) for n in range(4)]
    victim = await many.holder(begun[0][0])
    await victim.kill()
    for log, task in begun:
        assert (await log.finished(task, AT_ONCE_SECONDS))["outcome"] == "succeeded"
        await log.check()
        await log.ran_once()
    assert begun[0][0].of("task.resumed") == [{"reason": "lease_expired"}]


async def test_a_worker_that_stood_still_past_its_lease_ends_nothing_and_touches_nothing(
    on_postgres: Many, model: ModelServer
) -> None:
    many = on_postgres
    commands = [f"echo {n} >> log.txt" for n in range(12)]
    calls = [Call(name="shell", arguments={"command": command}) for command in commands]
    model.scripts["*"] = Script(
        answers=[*(Answer(calls=[call]) for call in calls), Answer(text="Done.")]
    )
    await many.make(gateways=1, workers=2)
    log, task = await many.begin()
    await log.live(lambda event: event.step == 4)
    victim = await many.holder(log)
    victim.freeze()
    assert (await log.finished(task))["outcome"] == "succeeded"
    assert (await many.holder(log, attempt=2)) is not victim
    await log.until(says("diff.updated"))  # told after the task
    await log.check()
    asked = len(model.requests)
    victim.thaw()
    assert await victim.stop() == 0
    assert "lease.ran_out" in victim.program.errors
    seen = log.events
    await log.check()
    assert log.events == seen
    assert len(model.requests) == asked
    await appended(log, len(calls))


async def test_a_task_that_kills_three_workers_is_not_given_to_a_fourth(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(text=WORDS, fault=Fault(stall_at=2000))])
    await many.make(gateways=1, workers=3)
    log, task = await many.begin()
    for attempt in range(1, 4):
        await model.until(lambda: len(model.requests) == attempt)  # noqa: B023 - called at once
        await (await many.holder(log, attempt)).kill()
    await many.worker()
    end = await log.finished(task, AT_ONCE_SECONDS)
    assert (end["outcome"], end["error"]["code"]) == ("failed", "poison")
    await log.check()
    assert len(model.requests) == 3


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "is dead"])
async def test_a_cancel_kills_what_runs_though_its_worker(
    on_postgres: Many, model: ModelServer, *, hangs: bool
) -> None:
    many = on_postgres
    nap = f"600.{randrange(10**9, 10**10)}"
    call = Call(name="shell", arguments={"command": f"echo begun; sleep {nap}"})
    model.scripts["*"] = Script(answers=[Answer(calls=[call])])
    many.person.variables = {**many.person.variables, "ZENE_LEASE_SECONDS": LONG_LEASE}
    await many.make(gateways=2, workers=2)
    log, task = await many.begin()
    await log.live(says("item.delta", kind="command", text="begun"))
    victim, elsewhere = await many.holder(log), await many.client(1)
    if hangs:
        victim.freeze()
    async with all_ending(nap):
        if not hangs:
            await victim.kill()
        await elsewhere.cancel(task)
    assert (await log.finished(task))["outcome"] == "cancelled"
    await log.check()
    assert len(model.requests) == 1

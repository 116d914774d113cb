"""Hard quotas of a running server, counted by the model server and not by Zene."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.many import Many
from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.postgres_server import PostgresServer
from tests.redis_server import redis_server
from tests.servers import SECONDS, Log, Zene, begin, data, says, served_by
from zene.client import AsyncClient
from zene.domain.events import Event

TASKS, STEPS, LIMIT = 8, 5, 60_000
MANY, MANY_LIMIT = 50, 400_000
A_CALL = 21_000  # tokens: room for one call, about 3 400 of input and 16 384 of output, and not for another
STALLED = Answer(text="A long story.", fault=Fault(stall_at=200))


def planned(step: int) -> Answer:
    """A step of a task that needs no sandbox."""
    entry = {"text": f"Step {step}.", "status": "pending"}
    return Answer(tokens=300, calls=[Call(name="plan", arguments={"entries": [entry]})])


def served(model: ModelServer) -> int:
    """The tokens that the model server has counted."""
    return sum(used(model, n) for n in range(len(model.requests)))


def used(model: ModelServer, number: int) -> int:
    """What it counted for one request."""
    usage = model.requests[number].usage
    return 0 if usage is None else int(usage["total_tokens"])


async def told(client: AsyncClient, session_id: str, is_followed: asyncio.Event) -> Event:
    """The first news of the account that a follower of the session gets."""
    async with asyncio.timeout(SECONDS), aclosing(client.follow(session_id)) as events:
        async for event in events:
            is_followed.set()
            if event.type == "quota.updated":
                return event
    raise AssertionError("the session was deleted")


async def allow(client: AsyncClient, **allowed: Any) -> None:
    """Change what the client's own user may use; the administrator's."""
    await client.change_user((await client.me()).id, **allowed)


async def test_many_tasks_at_once_use_no_more_than_the_quota_and_keep_their_work(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[*map(planned, range(STEPS)), Answer(text="Done.")])
    client = await zene.client()
    await allow(client, quota={"tokens": LIMIT}, max_active_tasks=TASKS)
    begun = await asyncio.gather(*(begin(zene) for _ in range(TASKS)))
    ends = [await log.finished(task) for log, task in begun]
    outcomes = [end["outcome"] for end in ends]
    assert set(outcomes) <= {"succeeded", "budget_exhausted"}
    assert "budget_exhausted" in outcomes
    usage = await client.usage()
    assert LIMIT // 2 < served(model) == usage.used <= LIMIT
    assert (usage.reserved, usage.limit, usage.period) == (0, LIMIT, "total")
    log, _ = begun[outcomes.index("budget_exhausted")]
    await log.check()
    waits = [data for each, _ in begun for data in each.of("task.waiting")]
    assert {"on": "quota"} in waits
    # There is more: the session goes on with what it has.
    await allow(client, quota=None)
    again = await client.submit(log.session_id, "Go on.")
    assert (await log.finished(again.id))["outcome"] == "succeeded"


async def test_a_raise_lets_what_waits_go_on_at_once(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers_to={"Tell": [STALLED], "Say": [Answer(text="Hello.")]})
    client = await zene.client()
    await allow(client, quota={"tokens": A_CALL})
    telling, story = await begin(zene, "Tell me.")
    await telling.until(says("step.started"))
    is_followed = asyncio.Event()
    following = asyncio.create_task(told(client, telling.session_id, is_followed))
    await is_followed.wait()
    saying, word = await begin(zene, "Say it.")
    await saying.until(says("task.waiting", on="quota"))
    assert (await client.task(word)).waiting_on == "quota"
    await allow(client, quota={"tokens": 100_000, "period": "month"})
    assert (await saying.finished(word))["outcome"] == "succeeded"
    await saying.until(says("task.resumed", reason="quota"))
    account = await following  # in whatever session of the user's
    assert account.session_id == telling.session_id
    assert (data(account)["used"], data(account)["limit"]) == (used(model, -1), 100_000)
    await client.cancel(story)
    await telling.finished(story)
    usage = await client.usage()
    assert (usage.reserved, usage.limit, usage.period) == (0, 100_000, "month")


async def test_what_a_killed_server_had_reserved_is_charged_and_free_for_nobody(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[STALLED])
    client = await zene.client()
    await allow(client, quota={"tokens": A_CALL})
    log, task = await begin(zene)
    await log.until(says("step.started"))
    reserved = (await client.usage()).reserved
    assert reserved > 0
    await zene.restart()
    end = await log.finished(task)
    assert end["outcome"] == "budget_exhausted"
    usage = await client.usage()
    assert usage.reserved == 0
    assert reserved <= usage.used <= A_CALL
    assert served(model) <= usage.used
    assert log.of("step.finished")[0]["usage"]["estimated"]
    await log.check()


async def test_over_many_workers_of_which_one_is_killed_no_more_is_used_than_the_quota(
    tmp_path: Path, model: ModelServer, postgres: PostgresServer
) -> None:
    steps = [replace(planned(step), delay_ms=1) for step in range(STEPS)]
    model.scripts["*"] = Script(answers_to={"Tell": [STALLED]}, answers=steps)
    async with (
        redis_server(tmp_path) as redis,
        postgres.bare_database() as database,
        Many(
            tmp_path,
            served_by(model, ZENE_BUS=redis.url, ZENE_STORE=postgres.url(database)),
        ) as many,
    ):
        await many.make(gateways=1, workers=3)
        client = await many.client()
        await allow(client, quota={"tokens": MANY_LIMIT}, max_active_tasks=MANY)
        telling, story = await many.begin("Tell me.")
        begun = await asyncio.gather(*(many.begin() for _ in range(MANY)))
        await telling.until(says("step.started"))
        await (await many.holder(telling)).kill()
        await many.holder(telling, attempt=2)  # who asks again, and would keep the others waiting
        await client.cancel(story)
        await telling.finished(story)
        ends = [await log.finished(task) for log, task in begun]
        assert [
            end for end in ends if end["outcome"] not in ("succeeded", "budget_exhausted")
        ] == []
        assert "budget_exhausted" in {end["outcome"] for end in ends}
        usage = await client.usage()
        assert usage.reserved == 0
        assert MANY_LIMIT // 2 < served(model) <= usage.used <= MANY_LIMIT
        for log in (telling, *(log for log, _ in begun)):
            await log.check()


async def test_tasks_that_may_not_call_the_model_once_make_no_workspace(
    zene: Zene, model: ModelServer
) -> None:
    client = await zene.client()
    made = [await client.create_session() for _ in range(24)]
    tasks = await asyncio.gather(
        *(client.submit(one.id, "Go.", max_tokens_total=1) for one in made)
    )
    ends = [
        await Log(client, one.id).finished(task.id) for one, task in zip(made, tasks, strict=True)
    ]
    assert {end["outcome"] for end in ends} == {"budget_exhausted"}
    assert not model.requests
    assert not list((zene.home / "data" / "workspaces").iterdir())

"""Batches that come at the same time: each as if it had come alone, whatever becomes of the others."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.contracts.store.test_copying import rows_of
from tests.contracts.store.world import (
    World,
    call,
    called,
    finished,
    message,
    question,
    say,
    stepped,
    waiting,
    written,
)
from tests.postgres_server import PostgresServer
from zene.domain.errors import Conflict, LeaseLost, Unavailable, ZeneError
from zene.domain.events import Draft, StepStarted
from zene.domain.tasks import Lease
from zene.store import claims, lanes, recording
from zene.store.postgres import TOGETHER, PostgresStore
from zene.store.sqlite import SqliteStore
from zene.store.together import MOST

MANY = 24
SECONDS = 20.0
Batch = tuple[Sequence[Draft], dict[str, Any]]


async def leases_of(world: World, number: int) -> list[Lease]:
    """Of so many users, each with a task that is worked on and one that waits behind it."""
    for _ in range(number):
        session = await world.session(await world.user())
        await world.submit(session, 1000)
        await world.submit(session)
    leases = [claim.lease for claim in await world.claim(number)]
    return sorted(leases, key=lambda lease: lease.task_id)


async def gathered(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """What becomes of each."""
    async with asyncio.timeout(SECONDS):
        return await asyncio.gather(*calls, return_exceptions=True)


async def test_every_log_gets_its_own_batches_and_no_gap(world: World) -> None:
    leases = await leases_of(world, MANY)
    told: dict[str, list[int]] = {lease.session_id: [] for lease in leases}
    for _ in range(3):
        items = [world.id("itm") for _ in leases]
        recorded = await gathered(
            [
                world.record(lease, message(lease, item), written(lease, item, lease.task_id))
                for lease, item in zip(leases, items, strict=True)
            ]
        )
        for lease, found in zip(leases, recorded, strict=True):
            told[lease.session_id] += [event.seq for event in found.events]
    for lease in leases:
        events = await world.log(lease.session_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [e.seq for e in events if e.type.startswith("item.")] == told[lease.session_id]
        assert {e.task_id for e in events if e.type.startswith("item.")} == {lease.task_id}
        contents = [item.content for item in (await world.situation(lease)).items]
        assert [each.text for each in contents if hasattr(each, "text")] == [lease.task_id] * 3


async def test_a_lease_that_was_lost_drops_out_alone(world: World) -> None:
    leases = await leases_of(world, MANY)
    lost = set(leases[::5])
    for lease in lost:
        await world.store.write(claims.hand_over, lease, now=world.now, worked_ms=0)
    ends = await gathered([world.finish(lease) for lease in leases])
    assert {
        lease for lease, end in zip(leases, ends, strict=True) if isinstance(end, LeaseLost)
    } == (lost)
    for lease in leases:
        types = await world.types(lease.session_id)
        assert ("task.finished" in types) == (lease not in lost)


async def test_a_batch_that_is_refused_takes_no_other_with_it(world: World) -> None:
    leases = await leases_of(world, MANY)
    items = [world.id("itm") for _ in leases]
    for lease, item in zip(leases, items, strict=True):
        await world.record(lease, call(lease, item))
    refused = leases[7]
    await world.record(refused, intents=[items[7]])
    ends = await gathered(
        [world.record(lease, intents=[item]) for lease, item in zip(leases, items, strict=True)]
    )
    assert [
        lease for lease, end in zip(leases, ends, strict=True) if isinstance(end, Conflict)
    ] == [refused]
    for lease, item in zip(leases, items, strict=True):
        assert (await world.situation(lease)).begun == {item}


async def test_a_batch_that_comes_again_beside_others_does_nothing(world: World) -> None:
    leases = await leases_of(world, 8)
    items = [world.id("itm") for _ in leases]

    async def all_of_them() -> list[Any]:
        return await gathered(
            [
                world.record(lease, message(lease, item), batch_id="1.1")
                for lease, item in zip(leases, items, strict=True)
            ]
        )

    first, again = await all_of_them(), await all_of_them()
    assert [each.events for each in again] == [each.events for each in first]


async def test_batches_of_one_user_are_not_mixed_up(world: World) -> None:
    user = await world.user()
    for _ in range(4):
        await world.submit(await world.session(user))
    leases = [claim.lease for claim in await world.claim(4)]
    ends = await gathered([world.finish(lease) for lease in leases])
    assert [end.events[-1].type for end in ends] == ["task.finished"] * 4
    await world.submit(await world.session(user))
    assert len(await world.claim(user_cap=1)) == 1  # none of the four counts any more


@pytest.fixture
async def postgres_store(postgres: PostgresServer) -> AsyncIterator[PostgresStore]:
    async with postgres.database() as name:
        opened = PostgresStore(postgres.url(name))
        yield opened
        await opened.close()


def batches(world: World, lease: Lease, chance: random.Random) -> list[Batch]:
    """What a task may do, from its first batch to one that ends it or lets it wait."""
    first, asked, said = world.id("itm"), world.id("itm"), world.id("itm")
    step = say(lease, StepStarted(model="demo:"))
    begins: Batch = ([step], {"reserve": chance.choice([100, 700, 5000]), "output_cap": 300})
    ends: list[list[Batch]] = [
        [([finished(lease, "failed")], {})],
        [([finished(lease)], {})],
        [([waiting(lease)], {})],
        [([question(lease, asked, world.id("apr"), world.now + 1000), waiting(lease)], {})],
        [([called(lease, asked)], {}), ([finished(lease)], {})],
    ]
    tools: list[Batch] = [([call(lease, asked)], {}), ([], {"intents": [asked]})]
    speaks: list[Batch] = [
        ([message(lease, first), written(lease, first)], {}),
        ([message(lease, said)], {}),
        ([written(lease, said)], {}),
    ]
    middle = [*chance.choice([[], speaks]), ([stepped(lease, cost=chance.choice([None, 0.5]))], {})]
    return [begins, *middle, *tools[: chance.choice([1, 2])], *chance.choice(ends)]


async def played(
    world: World, seed: int, at_once: Callable[[Sequence[Awaitable[Any]]], Awaitable[list[Any]]]
) -> list[list[str]]:
    """Let tasks of many users do what they may, in step; the answers, or why there was none."""
    chance = random.Random(seed)
    leases = await leases_of(world, MANY)
    plans = [batches(world, lease, chance) for lease in leases]
    answers: list[list[str]] = []
    for number, some in enumerate(zip_longest(*plans), 1):
        calls = [
            world.record(lease, *batch[0], batch_id=str(number), **batch[1])
            for lease, batch in zip(leases, some, strict=True)
            if batch is not None
        ]
        answers.append([_told(each) for each in await at_once(calls)])
        world.now += 1000
    return answers


def _told(answer: Any) -> str:
    if isinstance(answer, ZeneError):
        return answer.code
    return msgspec.json.encode(answer).decode()


async def one_by_one(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """What becomes of each, before the next begins."""
    return [(await gathered([each]))[0] for each in calls]


@pytest.mark.parametrize("seed", range(4))
async def test_what_comes_together_ends_as_if_it_had_come_one_by_one(
    postgres_store: PostgresStore, tmp_path: Path, seed: int
) -> None:
    file = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await file.migrate()
    together, alone = World(postgres_store), World(file)
    told = await played(together, seed, gathered)
    assert told == await played(alone, seed, one_by_one)
    assert any(end == "lease_lost" for some in told for end in some)  # some have ended before
    assert await rows_of(postgres_store) == await rows_of(file)
    await file.close()


async def test_who_waits_for_a_row_keeps_no_other_waiting(
    postgres_store: PostgresStore, said: list[str]
) -> None:
    world = World(postgres_store)
    leases = await leases_of(world, MANY)
    connection = await asyncpg.connect(postgres_store.url)
    try:
        async with connection.transaction():
            await connection.fetch(
                "SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", leases[3].session_id
            )
            held = asyncio.create_task(world.finish(leases[3]))
            others = [lease for lease in leases if lease != leases[3]]
            ends = await gathered([world.finish(lease) for lease in others])
            assert [end.events[-1].type for end in ends] == ["task.finished"] * len(others)
            assert not held.done()
            assert "ROLLBACK" not in said  # no group was given up because of it
    finally:
        await connection.close()
    assert (await held).events[-1].type == "task.finished"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to the server, as it goes there."""
    found: list[str] = []
    for name in ("fetch", "execute"):
        goes = getattr(asyncpg.Connection, name)

        async def noted(connection: Any, sql: str, *values: Any, goes: Any = goes) -> Any:
            found.append(sql)
            return await goes(connection, sql, *values)

        monkeypatch.setattr(asyncpg.Connection, name, noted)
    return found


async def test_what_comes_together_is_asked_together(
    postgres_store: PostgresStore, said: list[str]
) -> None:
    world = World(postgres_store)
    leases = await leases_of(world, 16)
    said.clear()
    await world.finish(leases[0])
    alone = len(said)
    said.clear()
    await gathered([world.finish(lease) for lease in leases[1:]])
    assert len(said) < 5 * alone  # in place of fifteen times


async def test_sessions_of_one_user_are_asked_together_where_nothing_of_the_users_is_written(
    postgres_store: PostgresStore, said: list[str]
) -> None:
    world = World(postgres_store)
    user = await world.user()
    for _ in range(8):
        await world.submit(await world.session(user))
    leases = [claim.lease for claim in await world.claim(8, user_cap=8)]
    said.clear()
    await gathered([world.record(lease, message(lease, world.id("itm"))) for lease in leases])
    assert said.count("BEGIN") == 1


async def test_who_fails_as_the_connection_is_lost_fails_alone(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(postgres_store)
    leases = await leases_of(world, 8)
    items = [world.id("itm") for _ in leases]
    for lease, item in zip(leases, items, strict=True):
        await world.record(lease, call(lease, item))
    await world.record(leases[3], intents=[items[3]])
    fetch = asyncpg.Connection.fetch

    async def lost(connection: Any, sql: str, *values: Any) -> Any:
        rows = await fetch(connection, sql, *values)
        if sql.startswith("WITH q0 AS (UPDATE items SET intent_epoch"):
            connection.terminate()  # with its answer, the server's end
        return rows

    monkeypatch.setattr(asyncpg.Connection, "fetch", lost)
    ends = await gathered(
        [world.record(lease, intents=[item]) for lease, item in zip(leases, items, strict=True)]
    )
    refused = [n for n, end in enumerate(ends) if isinstance(end, Conflict)]
    assert refused in ([], [3])
    assert sum(isinstance(end, Unavailable) for end in ends) > 1


@pytest.mark.parametrize("together", [False, True])
async def test_what_was_given_up_does_not_begin_any_more(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> None:
    world = World(postgres_store)
    [lease] = await leases_of(world, 1)
    before = await world.log(lease.session_id)
    may_connect, connect = asyncio.Event(), asyncpg.connect

    async def late(*args: Any, **kwargs: Any) -> Any:
        await may_connect.wait()
        return await connect(*args, **kwargs)

    slow = PostgresStore(postgres_store.url)
    unit = partial(recording.record, lease, [finished(lease)], batch_id="1.1", now=world.now)
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg, "connect", late)
        patched.setattr(lanes, "SECONDS", 0.2)
        with pytest.raises(Unavailable):
            await (slow.write_together("", unit) if together else slow.write(unit))
    may_connect.set()
    await slow.close()  # after all that began
    assert await world.log(lease.session_id) == before


async def test_who_has_waited_for_long_takes_nobody_down(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(postgres_store)
    leases = await leases_of(world, MOST * TOGETHER + 1)
    fetch = asyncpg.Connection.fetch

    async def slow(connection: Any, sql: str, *values: Any) -> Any:
        if sql.endswith("SKIP LOCKED") or "SKIP LOCKED)" in sql:
            # Who waits for this and then for its own waits longer than it may.
            await asyncio.sleep(0.65 * lanes.SECONDS)
        return await fetch(connection, sql, *values)

    monkeypatch.setattr(asyncpg.Connection, "fetch", slow)
    ends = await gathered([world.finish(lease) for lease in leases])
    assert [end.events[-1].type for end in ends] == ["task.finished"] * len(leases)


async def test_a_store_that_closes_finishes_what_has_to_go_alone(
    postgres_store: PostgresStore, said: list[str]
) -> None:
    world = World(postgres_store)
    [lease] = await leases_of(world, 1)
    closing = PostgresStore(postgres_store.url)
    connection = await asyncpg.connect(postgres_store.url)
    try:
        async with connection.transaction():
            await connection.fetch(
                "SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", lease.session_id
            )
            held = asyncio.create_task(World(closing).finish(lease))
            await asyncio.sleep(0)
            closed = asyncio.create_task(closing.close())
            async with asyncio.timeout(SECONDS):
                while not said[-1].endswith(" OF users, sessions"):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)  # until it goes alone, and waits
            assert not held.done()
            assert not closed.done()
    finally:
        await connection.close()
    assert (await held).events[-1].type == "task.finished"
    await closed

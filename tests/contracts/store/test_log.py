"""The log: gapless whoever appends, closed to whoever has lost the lease."""

import asyncio

import pytest
from sqlalchemy import bindparam, update

from tests.contracts.store.world import World, message, say
from zene.domain.errors import LeaseLost, NotFound
from zene.domain.events import Draft, SandboxState, SessionUpdated
from zene.store import claims, log, schema, sessions
from zene.store.base import Statement, Unit

STATE = Draft(body=SandboxState(state="started", ms=1))


async def test_fifty_who_append_at_once_leave_no_gap_and_no_double(world: World) -> None:
    session = await world.session(await world.user())

    async def append(size: int) -> None:
        for _ in range(4):
            await world.store.write(log.append, session.id, [STATE] * size, world.now)

    await asyncio.gather(*(append(1 + n % 3) for n in range(50)))
    events = await world.log(session.id)
    assert len(events) == 1 + 4 * sum(1 + n % 3 for n in range(50))


async def test_what_is_returned_is_what_is_read(world: World) -> None:
    claim = await world.started()
    recorded = await world.record(claim.lease, message(claim.lease, world.id("itm")))
    assert list(recorded.events) == (await world.log(claim.session.id))[-1:]


async def test_a_page_begins_after_the_cursor_and_tells_the_head(world: World) -> None:
    user = await world.user()
    session = await world.session(user)
    await world.store.write(log.append, session.id, [STATE] * 9, world.now)
    page, last = await world.store.read(log.read_events, user.id, session.id, 4, 3)
    assert ([event.seq for event in page], last) == ([5, 6, 7], 10)


async def test_a_page_ends_about_where_it_has_as_many_bytes_as_it_may(world: World) -> None:
    session = await world.session(await world.user())
    long = Draft(body=SessionUpdated(title="x" * 1000))
    await world.store.write(log.append, session.id, [long] * 99, world.now)
    seen, pages = 0, []
    while page := await world.store.read(log.tail, session.id, seen, 90, most_bytes=30_000):
        pages.append(len(page))
        assert [event.seq for event in page] == list(range(seen + 1, seen + len(page) + 1))
        seen = page[-1].seq
    assert seen == 100
    assert max(pages) <= 32
    assert len(await world.store.read(log.tail, session.id, 0, 90)) == 90


async def test_nobody_else_reads_a_log(world: World) -> None:
    session = await world.session(await world.user())
    other = await world.user()
    with pytest.raises(NotFound):
        await world.store.read(log.read_events, other.id, session.id, 0, 10)


async def test_heads_of_many_sessions_are_one_read(world: World) -> None:
    user = await world.user()
    made = [await world.session(user) for _ in range(130)]
    await world.store.write(log.append, made[129].id, [STATE], world.now)
    heads = await world.store.read(log.heads, [*(each.id for each in made), "ses_unknown"])
    assert heads == {each.id: 1 for each in made} | {made[129].id: 2}


async def test_an_old_epoch_is_refused_and_leaves_nothing(world: World) -> None:
    claim = await world.started()
    world.now += 16_000
    await world.sweep()
    before = await world.log(claim.session.id)
    with pytest.raises(LeaseLost):
        await world.record(claim.lease, message(claim.lease, world.id("itm")))
    assert await world.log(claim.session.id) == before


async def test_a_predecessor_writes_nothing_once_another_has_the_lease(world: World) -> None:
    old = await world.started()
    world.now += 16_000
    await world.sweep()
    (new,) = await world.claim(worker="two")
    with pytest.raises(LeaseLost):
        await world.finish(old.lease)
    with pytest.raises(LeaseLost):
        await world.store.write(claims.hand_over, old.lease, now=world.now, worked_ms=0)
    await world.finish(new.lease)
    assert (await world.task(new.task)).outcome == "succeeded"


async def test_an_owner_that_let_go_writes_nothing_more(world: World) -> None:
    claim = await world.started()
    await world.finish(claim.lease)
    with pytest.raises(LeaseLost):
        await world.record(claim.lease, message(claim.lease, world.id("itm")))


async def test_a_deleted_session_takes_no_more_events(world: World) -> None:
    claim = await world.started()
    await world.store.write(
        sessions.delete_session, claim.lease.user_id, claim.session.id, world.now, world.id("job")
    )
    await world.fails(NotFound, log.append, claim.session.id, [STATE], world.now)
    with pytest.raises(LeaseLost):
        await world.record(claim.lease, say(claim.lease, SandboxState(state="gone")))
    assert (await world.log(claim.session.id))[-1].type == "session.deleted"


async def test_a_statement_with_many_values_is_run_for_each_in_order(world: World) -> None:
    some = [await world.user() for _ in range(3)]
    put = Statement(
        update(schema.users)
        .where(schema.users.c.id == bindparam("user"))
        .values(turn=bindparam("at") - schema.users.c.turn)
    )

    def turned() -> Unit[None]:
        yield put.many([{"user": user.id, "at": n} for n in (5, 7) for user in some])

    await world.store.write(turned)
    for user in some:
        assert await world.value(schema.users.c.turn, schema.users, user.id) == 2

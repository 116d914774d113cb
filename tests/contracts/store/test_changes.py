"""What a session changed is told once, whoever else appends; and the queue as followers are told it."""

import asyncio

import pytest

from tests.contracts.store.world import World, message
from zene.domain.errors import NotFound
from zene.domain.events import ChangedFile, DiffUpdated, Event
from zene.store import changes, tasks

ONE = DiffUpdated(files=[ChangedFile(path="a", added=1, removed=0)], added=1, removed=0)
TWO = DiffUpdated(files=[ChangedFile(path="a", added=2, removed=0)], added=2, removed=0)


async def tell(world: World, session_id: str, body: DiffUpdated) -> list[Event]:
    return await world.store.write(changes.tell, session_id, body, world.now)


async def test_only_what_is_news_is_told(world: World) -> None:
    session = await world.session(await world.user())
    told = [
        len(await tell(world, session.id, body))
        for body in (changes.NOTHING, ONE, ONE, TWO, changes.NOTHING, changes.NOTHING, ONE)
    ]
    assert told == [0, 1, 0, 1, 1, 0, 1]
    assert [event.type for event in await world.log(session.id)][1:] == ["diff.updated"] * 4


async def test_it_is_of_no_task_and_disturbs_none(world: World) -> None:
    claim = await world.started()
    (event,) = await tell(world, claim.session.id, ONE)
    assert event.task_id is None
    await asyncio.gather(
        tell(world, claim.session.id, TWO),
        *(world.record(claim.lease, message(claim.lease, world.id("itm"))) for _ in range(5)),
    )
    await world.finish(claim.lease)
    seqs = [event.seq for event in await world.log(claim.session.id)]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_another_sessions_changes_are_its_own(world: World) -> None:
    user = await world.user()
    one, other = await world.session(user), await world.session(user)
    assert await tell(world, one.id, ONE)
    assert await tell(world, other.id, ONE)


async def test_nothing_is_told_of_a_session_that_is_gone(world: World) -> None:
    with pytest.raises(NotFound):
        await tell(world, "ses_unknown", ONE)


async def test_a_queued_task_has_a_place_behind_all_that_have_not_ended(world: World) -> None:
    user = await world.user()
    session, idle = await world.session(user), await world.session(user)
    first, second, third = [await world.submit(session) for _ in range(3)]
    many = [*(f"ses_{n}" for n in range(70)), session.id, idle.id]
    assert await world.store.read(tasks.queues, many) == {
        session.id: {first.id: 0, second.id: 1, third.id: 2}
    }
    (claim,) = await world.claim()
    assert await world.store.read(tasks.queues, many) == {session.id: {second.id: 1, third.id: 2}}
    await world.finish(claim.lease)
    assert await world.store.read(tasks.queues, many) == {session.id: {second.id: 0, third.id: 1}}

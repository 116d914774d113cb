"""Claims: in order within a session, in turn among users, never over a cap."""

import asyncio
from collections import Counter
from functools import partial

from tests.contracts.store.world import World
from zene.domain.events import TaskStarted
from zene.domain.users import Role
from zene.store import claims, queue, schema, users


async def test_only_the_oldest_task_of_a_session_is_handed_out(world: World) -> None:
    session = await world.session(await world.user())
    first, second = await world.submit(session), await world.submit(session)
    (claim,) = await world.claim(limit=5)
    assert claim.task.id == first.id
    assert await world.claim(limit=5) == []
    await world.finish(claim.lease)
    (claim,) = await world.claim(limit=5)
    assert claim.task.id == second.id


async def test_a_task_that_comes_back_goes_before_every_follow_up(world: World) -> None:
    session = await world.session(await world.user())
    first, _ = await world.submit(session), await world.submit(session)
    (claim,) = await world.claim()
    await world.store.write(claims.hand_over, claim.lease, now=world.now, worked_ms=5)
    (again,) = await world.claim()
    assert (again.task.id, again.task.attempt, again.task.worked_ms) == (first.id, 1, 5)


async def test_a_claim_says_who_took_it_under_a_new_epoch(world: World) -> None:
    session = await world.session(await world.user())
    await world.submit(session)
    (claim,) = await world.claim(worker="seven")
    assert (claim.lease.worker, claim.lease.epoch, claim.task.status) == ("seven", 1, "preparing")
    assert claim.task.started_at == world.now
    assert claim.event.type == TaskStarted.type
    assert (await world.log(session.id))[-1] == claim.event


async def test_a_users_cap_holds_however_many_claim_at_once(world: World) -> None:
    user = await world.user()
    for _ in range(10):
        await world.submit(await world.session(user))
    found = await asyncio.gather(*(world.claim(limit=2, user_cap=3) for _ in range(8)))
    claimed = [claim for some in found for claim in some]
    assert len(claimed) == 3
    await world.finish(claimed[0].lease)
    assert len(await world.claim(limit=5, user_cap=3)) == 1


async def test_many_who_claim_at_once_get_everything_once(world: World) -> None:
    made = set()
    for _ in range(12):
        made.add((await world.submit(await world.session(await world.user()))).id)
    found = await asyncio.gather(*(world.claim(limit=3) for _ in range(8)))
    claimed = [claim.task.id for some in found for claim in some]
    assert sorted(claimed) == sorted(made)


async def test_a_users_own_cap_goes_before_the_installations(world: World) -> None:
    user = await world.user()
    for _ in range(3):
        await world.submit(await world.session(user))
    set_cap = schema.users.update().values(max_active_tasks=2)
    await world.do(set_cap)
    assert len(await world.claim(limit=5, user_cap=1)) == 2


async def test_users_take_turns(world: World) -> None:
    busy = await world.user()
    for _ in range(20):
        await world.submit(await world.session(busy))
    others = [await world.user() for _ in range(4)]
    for user in others:
        await world.submit(await world.session(user))
    served = [claim.task.user_id for claim in await world.claim(limit=5, user_cap=10)]
    assert Counter(served) == Counter([busy.id, *(user.id for user in others)])


async def test_whoever_was_served_last_waits_longest(world: World) -> None:
    one, two = await world.user(), await world.user()
    for user in (one, two):
        for _ in range(3):
            await world.submit(await world.session(user))
    served = []
    for _ in range(6):
        (claim,) = await world.claim()
        served.append(claim.task.user_id)
        await world.finish(claim.lease)
    assert served == [one.id, two.id] * 3


async def test_users_whose_tasks_are_all_at_another_home_take_no_turn_of_anybody_here(
    world: World,
) -> None:
    for _ in range(6):
        session = await world.session(await world.user())
        for _ in range(2):
            await world.submit(session)
    for gone in await world.claim(6, home="gone"):
        await world.finish(gone.lease)
    task = await world.submit(await world.session(await world.user()))
    claim_some = partial(
        claims.claim, worker="one", home="here", now=world.now, lease_seconds=15, user_cap=4
    )
    [claim] = (await world.store.write(claim_some, limit=1)).claims
    assert claim.task.id == task.id
    handed_out = await world.store.write(claim_some, limit=1)
    assert (len(handed_out.claims), handed_out.may_be_more) == (0, False)


async def test_a_disabled_user_gets_no_worker(world: World) -> None:
    user = await world.user()
    await world.submit(await world.session(user))
    await world.store.write(users.set_disabled, user.id, world.now)
    assert await world.claim() == []
    await world.store.write(users.set_disabled, user.id, None)
    await world.store.write(users.set_role, user.id, Role.ADMIN)
    assert len(await world.claim()) == 1


async def test_two_workers_never_get_the_same_task(world: World) -> None:
    for _ in range(20):
        await world.submit(await world.session(await world.user()))
    found = await asyncio.gather(*(world.claim(limit=3, worker=str(n)) for n in range(10)))
    ids = [claim.task.id for some in found for claim in some]
    assert len(ids) == len(set(ids)) == 20


async def test_a_lease_is_extended_only_while_it_is_held(world: World) -> None:
    kept, lost = await world.started(), await world.started()
    await world.finish(lost.lease)
    extend = partial(claims.extend, now=world.now, lease_seconds=30)
    assert await world.store.write(extend, kept.lease)
    assert not await world.store.write(extend, lost.lease)
    world.now += 20_000
    assert await world.sweep() == []
    world.now += 11_000
    assert [session_id for session_id, _ in await world.sweep()] == [kept.session.id]


async def test_what_is_asked_to_be_cancelled_is_told(world: World) -> None:
    one, two = await world.started(), await world.started()
    await world.cancel(one.task)
    asked = [one.task.id, two.task.id]
    assert await world.store.read(claims.cancelling, asked) == [one.task.id]


async def test_of_what_a_user_has_ready_the_higher_priority_goes_first(world: World) -> None:
    user, other = await world.user(), await world.user()
    for priority in (0, -5, 7, 7):
        await world.submit(await world.session(user), priority=priority)
    theirs = await world.submit(await world.session(other), priority=-100)
    served = await world.claim(limit=2)
    assert theirs.id in {claim.task.id for claim in served}
    await asyncio.gather(*(world.finish(claim.lease) for claim in served))
    rest = []
    while got := await world.claim():
        rest += got
        await world.finish(got[0].lease)
    mine = [claim.task for claim in (*served, *rest) if claim.task.user_id == user.id]
    assert [task.priority for task in mine] == [7, 7, 0, -5]
    assert mine[0].id < mine[1].id


async def test_a_priority_does_not_overtake_in_its_own_session(world: World) -> None:
    session = await world.session(await world.user())
    first, urgent = await world.submit(session), await world.submit(session, priority=100)
    (claim,) = await world.claim(limit=5)
    assert claim.task.id == first.id
    await world.cancel(first)
    await world.finish(claim.lease)
    (claim,) = await world.claim(limit=5)
    assert claim.task.id == urgent.id


async def test_who_claims_a_session_that_the_release_before_left_marks_its_head(
    world: World,
) -> None:
    sessions = [await world.session(await world.user()) for _ in range(2)]
    for session in sessions:
        for _ in range(2):
            await world.submit(session)
    await world.do(schema.tasks.update().values(is_head=0))
    assert await world.claim(limit=5) == []
    found = await world.store.read(queue.unmarked, 10)
    assert found == [session.id for session in sessions]
    for session_id in found:
        await world.store.write(queue.mark, session_id, world.now)
    assert await world.store.read(queue.unmarked, 10) == []
    assert len(await world.claim(limit=5)) == 2

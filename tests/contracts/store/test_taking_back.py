"""Dead owners: what they had goes on elsewhere, or ends where it kills its workers."""

from functools import partial

from tests.contracts.store.world import World, call, message, say, stepped
from zene.domain.events import StepStarted
from zene.domain.tasks import POISON_ATTEMPTS
from zene.store import claims, schema
from zene.store.claims import Claim


async def lose(world: World, claim: Claim) -> None:
    """The worker dies."""
    world.now += 16_000
    assert [session_id for session_id, _ in await world.sweep()] == [claim.session.id]


async def test_a_dead_workers_task_is_claimed_again_with_its_next_attempt(world: World) -> None:
    claim = await world.started()
    await lose(world, claim)
    (again,) = await world.claim()
    assert (again.task.id, again.task.attempt) == (claim.task.id, 2)
    assert again.lease.epoch > claim.lease.epoch
    assert await world.types(claim.session.id) == [
        "task.queued", "task.started", "task.resumed", "task.started",
    ]  # fmt: skip


async def test_a_living_workers_task_is_left_alone(world: World) -> None:
    await world.started()
    world.now += 14_000
    assert await world.sweep() == []


async def test_a_start_takes_over_every_lease_at_once(world: World) -> None:
    made = [await world.started() for _ in range(3)]
    swept = await world.store.write(claims.take_over_all, now=world.now)
    assert {session_id for session_id, _ in swept} == {claim.session.id for claim in made}
    assert len(await world.claim(limit=5)) == 3


async def test_only_what_a_dead_worker_had_is_taken_from_it(world: World) -> None:
    await world.submit(await world.session(await world.user()))
    (dead,) = await world.claim(worker="dead")
    await world.submit(await world.session(await world.user()))
    (living,) = await world.claim(worker="living")
    swept = await world.store.write(claims.take_over_from, worker="dead", now=world.now)
    assert [session_id for session_id, _ in swept] == [dead.session.id]
    assert (await world.task(dead.task)).status == "queued"
    assert (await world.task(living.task)).status == "preparing"
    assert await world.store.write(claims.take_over_from, worker="dead", now=world.now) == []


async def test_a_session_stays_with_the_home_that_claimed_it_first(world: World) -> None:
    session = await world.session(await world.user())
    await world.submit(session)
    (claim,) = await world.claim(home="here")
    await lose(world, claim)
    assert await world.claim(home="there") == []
    assert await world.value(schema.users.c.active, schema.users, claim.lease.user_id) == 0
    (again,) = await world.claim(home="here")
    assert again.task.id == claim.task.id


async def test_a_task_that_ends_its_workers_is_poison(world: World) -> None:
    claim = await world.started()
    for _ in range(POISON_ATTEMPTS - 1):
        await lose(world, claim)
        (claim,) = await world.claim()
    await lose(world, claim)
    task = await world.task(claim.task)
    assert (task.status, task.outcome) == ("finished", "failed")
    assert task.error is not None
    assert task.error.code == "poison"
    assert await world.claim() == []
    assert await world.value(schema.users.c.active, schema.users, claim.lease.user_id) == 0


async def test_a_completed_step_shows_that_a_task_is_no_poison(world: World) -> None:
    claim = await world.started()
    for number in range(1, POISON_ATTEMPTS + 3):
        await world.step(claim.lease, number)
        await world.record(claim.lease, stepped(claim.lease, number))
        await lose(world, claim)
        (claim,) = await world.claim()
    assert (await world.task(claim.task)).attempt == POISON_ATTEMPTS + 3


async def test_a_half_made_step_is_charged_and_its_text_discarded(world: World) -> None:
    claim = await world.started()
    item_id = world.id("itm")
    await world.step(claim.lease, bound=700, cap=300)
    await world.record(claim.lease, message(claim.lease, item_id))
    await lose(world, claim)
    (again,) = await world.claim()
    situation = await world.situation(again.lease)
    assert (situation.items, situation.step) == ([], 1)
    usage = situation.usage
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (700, 300, True)
    types = await world.types(claim.session.id)
    assert types[-4:] == ["step.finished", "item.completed", "task.resumed", "task.started"]


async def test_open_calls_stay_open_for_the_next_run_to_settle(world: World) -> None:
    claim = await world.started()
    begun, waits = world.id("itm"), world.id("itm")
    await world.record(
        claim.lease, call(claim.lease, begun), call(claim.lease, waits), intents=[begun]
    )
    await lose(world, claim)
    (again,) = await world.claim()
    situation = await world.situation(again.lease)
    assert [item.id for item in situation.items] == [begun, waits]
    assert situation.begun == {begun}


async def test_what_was_to_be_cancelled_is_cancelled_when_its_worker_is_dead(world: World) -> None:
    claim = await world.started()
    await world.cancel(claim.task)
    await lose(world, claim)
    task = await world.task(claim.task)
    assert (task.status, task.outcome) == ("finished", "cancelled")
    assert await world.claim() == []


async def test_a_cancel_leaves_its_worker_three_seconds_whatever_that_extends(world: World) -> None:
    claim = await world.started()
    await world.cancel(claim.task)
    world.now += 2_000
    assert await world.store.write(claims.extend, claim.lease, now=world.now, lease_seconds=15)
    await world.cancel(claim.task)
    assert await world.sweep() == []
    world.now += 1_001
    assert [event.type for _, events in await world.sweep() for event in events] == [
        "task.finished"
    ]
    assert (await world.task(claim.task)).outcome == "cancelled"


async def test_who_cannot_kill_what_runs_sweeps_later(world: World) -> None:
    claim = await world.started()
    world.now += 16_000
    later = partial(claims.sweep_leases, expired_before=world.now - 5_000)
    assert await world.store.write(later, now=world.now, limit=100) == []
    assert [session_id for session_id, _ in await world.sweep()] == [claim.session.id]


async def test_a_hand_over_keeps_the_attempt_and_frees_the_user(world: World) -> None:
    claim = await world.started()
    await world.record(claim.lease, say(claim.lease, StepStarted(model="demo:")), reserve=1)
    events = await world.store.write(claims.hand_over, claim.lease, now=world.now, worked_ms=9)
    assert [event.type for event in events] == ["step.finished", "task.resumed"]
    task = await world.task(claim.task)
    assert (task.status, task.attempt, task.worked_ms) == ("queued", 1, 9)
    assert await world.value(schema.users.c.active, schema.users, claim.lease.user_id) == 0


async def test_a_hand_over_of_what_is_cancelled_ends_it(world: World) -> None:
    claim = await world.started()
    await world.cancel(claim.task)
    await world.store.write(claims.hand_over, claim.lease, now=world.now, worked_ms=9)
    assert (await world.task(claim.task)).outcome == "cancelled"

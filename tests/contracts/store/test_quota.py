"""Hard quotas: what a user's model calls have used and may still use never exceeds the limit."""

import asyncio

import pytest

from tests.contracts.store.world import DAY_MS, World, finished, message, stepped, waiting, written
from zene.domain.errors import LeaseLost, NotFound
from zene.domain.quotas import Account, Quota
from zene.domain.situation import Granted, Refused
from zene.domain.tasks import Task
from zene.domain.users import User
from zene.store import claims, quotas, recording, schema, sessions, shortage, usage
from zene.store.claims import Claim

LEAST = 1024


async def claimed(world: World, user: User, many: int = 1) -> list[Claim]:
    """Tasks of the user, each in a session of its own, all of them claimed."""
    for _ in range(many):
        await world.submit(await world.session(user))
    found = await world.claim(many, user_cap=many + 4)
    assert len(found) == many
    return found


async def wait(world: World, claim: Claim, *, bound: int, cap: int = LEAST) -> None:
    """Ask for tokens that others have reserved, and wait for them."""
    recorded = await world.step(claim.lease, bound=bound, cap=cap)
    assert recorded.grant == Refused("wait")
    recorded = await world.record(claim.lease, waiting(claim.lease, "quota"))
    assert recorded.is_short
    assert (await world.task(claim.task)).status == "waiting"


async def used(world: World, user: User, tokens: int) -> None:
    """The user has used so many tokens."""
    (claim,) = await claimed(world, user)
    await world.step(claim.lease, bound=tokens, cap=1)
    await world.record(claim.lease, stepped(claim.lease, tokens=(tokens, 0)))
    await world.finish(claim.lease)


async def resumed(world: World, task: Task) -> bool:
    """Whether the task is queued again, and its session's log says why."""
    is_queued = (await world.task(task)).status == "queued"
    log = await world.log(task.session_id)
    told = [event.type for event in log[-1:]] == ["task.resumed"]
    assert is_queued == (told and b'"quota"' in bytes(log[-1].data))
    return is_queued


@pytest.mark.parametrize(
    ("room", "granted"), [(8_001, 8_000), (8_000, 8_000), (7_999, 7_999), (1_025, 1_025), (1_024, 1_024)]
)  # fmt: skip
async def test_a_call_gets_its_cap_or_what_less_is_left(
    world: World, room: int, granted: int
) -> None:
    user = await world.user()
    await world.allow(user.id, 500 + room)
    (claim,) = await claimed(world, user)
    assert (await world.step(claim.lease, bound=500, cap=8_000)).grant == Granted(granted)
    assert await world.account(user.id) == Account(used=0, reserved=500 + granted, limit=500 + room)


@pytest.mark.parametrize("room", [1_023, 0, -1])
async def test_a_call_is_not_made_where_less_than_the_least_is_left_and_ends_its_task(
    world: World, room: int
) -> None:
    user = await world.user()
    await world.allow(user.id, 500 + room)
    (claim,) = await claimed(world, user)
    recorded = await world.step(claim.lease, bound=500, cap=8_000)
    assert recorded.grant == Refused("exhausted")
    assert [event.type for event in recorded.events] == ["task.finished"]
    assert (await world.task(claim.task)).outcome == "budget_exhausted"
    assert (await world.account(user.id)).reserved == 0
    assert await world.value(schema.users.c.active, schema.users, user.id) == 0
    await world.fails(LeaseLost, recording.record, claim.lease, (), batch_id="late", now=world.now)


async def test_a_model_that_never_says_more_than_a_little_needs_no_more(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 150)
    (claim,) = await claimed(world, user)
    assert (await world.step(claim.lease, bound=100, cap=50)).grant == Granted(50)


async def test_of_a_tasks_limit_and_its_users_quota_the_lower_holds(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 5_000)
    session = await world.session(user)
    await world.submit(session, 3_000)
    (claim,) = await world.claim()
    assert (await world.step(claim.lease, bound=1_000, cap=9_000)).grant == Granted(2_000)
    await world.record(claim.lease, stepped(claim.lease, tokens=(1_000, 500)))
    refused = await world.step(claim.lease, 2, bound=1_000, cap=9_000)
    assert refused.grant == Refused("exhausted")
    assert await world.account(user.id) == Account(used=1_500, reserved=0, limit=5_000)


async def test_many_calls_at_once_reserve_no_more_than_there_is(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 50_000)
    claims_ = await claimed(world, user, 40)

    async def call(claim: Claim, number: int) -> int:
        grant = (await world.step(claim.lease, bound=900, cap=4_000)).grant
        account = await world.account(user.id)
        assert account.used + account.reserved <= 50_000
        if not isinstance(grant, Granted):
            return 0
        tokens = 900, grant.max_output_tokens // (1 + number % 3)
        await world.record(claim.lease, stepped(claim.lease, tokens=tokens))
        return sum(tokens)

    spent = await asyncio.gather(*(call(claim, n) for n, claim in enumerate(claims_)))
    account = await world.account(user.id)
    assert account == Account(used=sum(spent), reserved=0, limit=50_000)
    assert account.used > 30_000


async def test_a_settlement_counts_what_was_used_and_frees_the_rest(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 10_000)
    (claim,) = await claimed(world, user)
    await world.step(claim.lease, bound=1_000, cap=4_000)
    recorded = await world.record(claim.lease, stepped(claim.lease, tokens=(900, 100)))
    assert recorded.account == Account(used=1_000, reserved=0, limit=10_000)
    again = await world.record(claim.lease, stepped(claim.lease, tokens=(900, 100)))
    assert again.account == recorded.account


async def test_a_provider_that_counts_more_than_could_be_is_charged_and_nobody_goes_on(
    world: World,
) -> None:
    user = await world.user()
    await world.allow(user.id, 5_000)
    (claim,) = await claimed(world, user)
    await world.step(claim.lease, bound=1_000, cap=4_000)
    await world.record(claim.lease, stepped(claim.lease, tokens=(7_000, 4_000)))
    assert (await world.account(user.id)).used == 11_000
    assert (await world.step(claim.lease, 2, bound=1, cap=4_000)).grant == Refused("exhausted")


async def test_a_task_waits_only_while_others_may_leave_enough(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two, three = await claimed(world, user, 3)
    await world.step(one.lease, bound=1_000, cap=4_500)
    exact = 6_000 - LEAST
    assert (await world.step(two.lease, bound=exact, cap=9_000)).grant == Refused("wait")
    refused = await world.step(three.lease, bound=exact + 1, cap=9_000)
    assert refused.grant == Refused("exhausted")
    wanted = schema.tasks.c.wanted_tokens
    assert await world.value(wanted, schema.tasks, two.task.id) == 6_000
    assert await world.value(wanted, schema.tasks, three.task.id) is None


async def test_a_waiting_task_holds_neither_worker_nor_place_and_goes_on_once_it_fits(
    world: World,
) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two = await claimed(world, user, 2)
    await world.step(one.lease, bound=1_000, cap=5_000)
    await wait(world, two, bound=1_000)
    assert await world.value(schema.users.c.active, schema.users, user.id) == 1
    assert await world.resume(user.id) == []
    recorded = await world.record(one.lease, stepped(one.lease, tokens=(1_000, 2_000)))
    assert recorded.is_short
    assert await world.resume(user.id) == ["task.resumed"]
    assert await resumed(world, two.task)
    (again,) = await world.claim()
    assert again.task.id == two.task.id
    assert (await world.step(again.lease, bound=1_000, cap=9_000)).grant == Granted(2_000)
    assert await world.value(schema.tasks.c.wanted_tokens, schema.tasks, two.task.id) is None


async def test_only_what_fits_is_queued_again_the_oldest_first(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 10_000)
    one, large, small, last = await claimed(world, user, 4)
    await world.step(one.lease, bound=1_000, cap=9_000)
    await wait(world, large, bound=5_000)
    await wait(world, small, bound=1_000)
    await wait(world, last, bound=1_000)
    await world.record(one.lease, stepped(one.lease, tokens=(1_000, 2_000)))
    await world.step(one.lease, 2, bound=1_000, cap=2_000)
    # 4 000 are free: not enough for the large one, and for one of the others after the other.
    assert await world.resume(user.id) == ["task.resumed"]
    assert [await resumed(world, each.task) for each in (large, small, last)] == [
        False,
        True,
        False,
    ]


async def test_what_was_promised_to_one_is_not_promised_to_another(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 10_000)
    one, two, three = await claimed(world, user, 3)
    await world.step(one.lease, bound=1_000, cap=9_000)
    await wait(world, two, bound=3_000)
    await wait(world, three, bound=3_000)
    await world.record(one.lease, stepped(one.lease, tokens=(1_000, 2_000)))
    assert await world.resume(user.id) == ["task.resumed"]
    assert await world.resume(user.id) == []
    assert [await resumed(world, each.task) for each in (two, three)] == [True, False]
    await world.cancel(two.task)
    assert user.id in await world.store.read(shortage.short_users, now=world.now, limit=10)
    assert await world.resume(user.id) == ["task.resumed"]


async def test_what_cannot_fit_any_more_ends_with_its_work_kept(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two = await claimed(world, user, 2)
    item = world.id("itm")
    await world.record(two.lease, message(two.lease, item), written(two.lease, item, "So far."))
    await world.step(one.lease, bound=1_000, cap=5_000)
    await wait(world, two, bound=3_000)
    assert await world.store.read(shortage.short_users, now=world.now, limit=10) == []
    await world.record(one.lease, stepped(one.lease, tokens=(1_000, 1_500)))
    assert await world.store.read(shortage.short_users, now=world.now, limit=10) == [user.id]
    assert await world.resume(user.id) == ["task.finished"]
    ended = await world.task(two.task)
    assert ended.outcome == "budget_exhausted"
    assert ended.error is not None
    assert ended.error.code == "budget_exhausted"
    assert "item.completed" in await world.types(two.session.id)
    assert await world.store.read(shortage.short_users, now=world.now, limit=10) == []


async def test_a_raise_and_a_lift_queue_at_once(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two, three = await claimed(world, user, 3)
    await world.step(one.lease, bound=1_000, cap=5_000)
    await wait(world, two, bound=1_000)
    await wait(world, three, bound=1_000)
    assert len(await world.allow(user.id, 6_000 + 2_024)) == 1
    assert await resumed(world, two.task)
    assert not await resumed(world, three.task)
    assert len(await world.allow(user.id, None)) == 1
    assert await resumed(world, three.task)


async def test_a_limit_that_was_lowered_below_what_is_used_stops_the_next_call(
    world: World,
) -> None:
    user = await world.user()
    await world.allow(user.id, 50_000)
    one, two = await claimed(world, user, 2)
    await world.step(one.lease, bound=1_000, cap=4_000)
    await world.step(two.lease, bound=1_000, cap=4_000)
    await world.record(one.lease, stepped(one.lease, tokens=(1_000, 4_000)))
    await world.allow(user.id, 4_000)
    assert (await world.step(one.lease, 2, bound=10, cap=4_000)).grant == Refused("exhausted")
    await world.record(two.lease, stepped(two.lease, tokens=(1_000, 3_000)))
    assert await world.account(user.id) == Account(used=9_000, reserved=0, limit=4_000)


async def test_a_lowered_limit_ends_what_waits_and_cannot_fit_any_more(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two = await claimed(world, user, 2)
    await world.step(one.lease, bound=1_000, cap=5_000)
    await wait(world, two, bound=1_000)
    await world.allow(user.id, 2_023)
    assert (await world.task(two.task)).outcome == "budget_exhausted"


async def test_a_task_that_waits_for_tokens_can_be_cancelled(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two = await claimed(world, user, 2)
    await world.step(one.lease, bound=1_000, cap=5_000)
    await wait(world, two, bound=1_000)
    task, _, has_worker = await world.cancel(two.task)
    assert (task.outcome, has_worker) == ("cancelled", False)
    await world.allow(user.id, None)
    assert (await world.task(two.task)).outcome == "cancelled"


async def test_a_dead_workers_reservation_is_charged_and_marked(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000)
    one, two = await claimed(world, user, 2)
    await world.step(one.lease, bound=1_000, cap=3_000)
    await wait(world, two, bound=3_000)
    world.now += 16_000
    assert len(await world.sweep()) == 1
    assert await world.account(user.id) == Account(used=4_000, reserved=0, limit=6_000)
    assert (await world.task(one.task)).usage.estimated
    assert await world.resume(user.id) == ["task.finished"]


async def test_whatever_ends_an_open_call_gives_its_reservation_back(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 100_000)
    given, ended, deleted, cancelled = await claimed(world, user, 4)
    for claim in (given, ended, deleted, cancelled):
        await world.step(claim.lease, bound=1_000, cap=1_000)
    assert (await world.account(user.id)).reserved == 8_000
    await world.store.write(claims.hand_over, given.lease, now=world.now, worked_ms=1)
    await world.record(ended.lease, finished(ended.lease))
    await world.store.write(
        sessions.delete_session, user.id, deleted.session.id, world.now, world.id("job")
    )
    await world.cancel(cancelled.task)
    await world.store.write(claims.take_over_all, now=world.now)
    assert await world.account(user.id) == Account(used=8_000, reserved=0, limit=100_000)


async def test_who_has_lost_the_lease_reserves_and_settles_nothing(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 100_000)
    (claim,) = await claimed(world, user)
    await world.step(claim.lease, bound=1_000, cap=1_000)
    world.now += 16_000
    await world.sweep()
    before = await world.account(user.id)
    with pytest.raises(LeaseLost):
        await world.step(claim.lease, 2, bound=1_000, cap=1_000)
    with pytest.raises(LeaseLost):
        await world.record(claim.lease, stepped(claim.lease))
    assert await world.account(user.id) == before


async def test_a_task_that_is_being_cancelled_reserves_nothing(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 100_000)
    (claim,) = await claimed(world, user)
    await world.cancel(claim.task)
    assert (await world.step(claim.lease)).grant == Refused("exhausted")
    assert (await world.account(user.id)).reserved == 0


async def test_a_new_day_begins_at_nothing_used_with_what_is_reserved(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000, "day")
    one, two = await claimed(world, user, 2)
    await world.step(one.lease, bound=1_000, cap=2_000)
    await world.record(one.lease, stepped(one.lease, tokens=(1_000, 2_000)))
    await world.step(one.lease, 2, bound=1_000, cap=2_000)
    await wait(world, two, bound=1_000)
    world.now += DAY_MS
    assert await world.store.read(shortage.short_users, now=world.now, limit=10) == [user.id]
    assert await world.account(user.id) == Account(used=0, reserved=3_000, limit=6_000)
    assert await world.resume(user.id) == ["task.resumed"]
    # It counts in the day in which it ends.
    await world.record(one.lease, stepped(one.lease, 2, tokens=(500, 500)))
    assert await world.account(user.id) == Account(used=1_000, reserved=0, limit=6_000)


async def test_a_month_goes_on_from_day_to_day(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000, "month")
    await used(world, user, 3_000)
    world.now += DAY_MS
    assert (await world.account(user.id)).used == 3_000
    world.now += 31 * DAY_MS
    assert (await world.account(user.id)).used == 0


async def test_a_clock_that_is_behind_begins_no_window_again(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 6_000, "day")
    world.now += DAY_MS
    await used(world, user, 4_000)
    world.now -= 1_000 + DAY_MS
    await used(world, user, 1_000)
    assert (await world.account(user.id)).used == 5_000
    world.now += 2_000 + DAY_MS
    assert (await world.account(user.id)).used == 5_000


async def test_two_that_begin_a_day_at_once_begin_it_once(world: World) -> None:
    user = await world.user()
    await world.allow(user.id, 30_000, "day")
    claims_ = await claimed(world, user, 20)
    midnight = world.now - world.now % DAY_MS + DAY_MS

    async def call(claim: Claim, number: int) -> int:
        world.now = midnight - 1 if number % 2 else midnight
        grant = (await world.step(claim.lease, bound=1_000, cap=2_000)).grant
        return 1_000 + grant.max_output_tokens if isinstance(grant, Granted) else 0

    await world.step(claims_[0].lease, bound=1_000, cap=4_000)
    await world.record(claims_[0].lease, stepped(claims_[0].lease, tokens=(1_000, 4_000)))
    granted = await asyncio.gather(*(call(claim, n) for n, claim in enumerate(claims_[1:])))
    assert sum(granted) <= 30_000
    account = await world.account(user.id)
    assert account.used + account.reserved <= 30_000
    assert account.reserved == sum(granted)


@pytest.mark.parametrize(
    ("quota", "counted"),
    [
        (Quota(tokens=9_000), 7_000),
        (Quota(tokens=9_000, period="month"), 3_000),
        (Quota(tokens=9_000, period="day"), 1_000),
    ],
)
async def test_what_was_used_before_there_was_a_quota_counts(
    world: World, quota: Quota, counted: int
) -> None:
    user = await world.user()
    for tokens, days in ((4_000, 31), (2_000, 1), (1_000, 0)):
        await used(world, user, tokens)
        world.now += days * DAY_MS
    await world.store.write(quotas.set_quota, user.id, quota, world.now)
    found = await world.store.read(usage.usage_of, user.id, world.now)
    assert found.account == Account(used=counted, reserved=0, limit=9_000)
    assert found.quota == quota


async def test_what_is_open_when_the_quota_comes_counts_too(world: World) -> None:
    user = await world.user()
    (claim,) = await claimed(world, user)
    await world.step(claim.lease, bound=1_000, cap=1_000)
    await world.do(
        schema.users.update().values(quota_reserved=0)
    )  # as the release before leaves it
    await world.allow(user.id, 9_000)
    assert (await world.account(user.id)).reserved == 2_000
    await world.do(schema.users.update().values(quota_reserved=0))
    await world.record(claim.lease, stepped(claim.lease, tokens=(10, 10)))
    assert (await world.account(user.id)).reserved == 0


async def test_another_users_quota_is_not_touched(world: World) -> None:
    one, other = await world.user(), await world.user()
    await world.allow(one.id, 2_000)
    await world.allow(other.id, 2_000)
    await used(world, one, 1_500)
    assert await world.account(other.id) == Account(used=0, reserved=0, limit=2_000)
    (claim,) = await claimed(world, other)
    assert (await world.step(claim.lease, bound=900, cap=1_100)).grant == Granted(1_100)


async def test_whoever_is_not_there_has_no_quota(world: World) -> None:
    nobody = world.id("usr")
    await world.fails(NotFound, quotas.set_quota, nobody, Quota(tokens=1), world.now)
    await world.fails(NotFound, quotas.look, nobody, world.now)

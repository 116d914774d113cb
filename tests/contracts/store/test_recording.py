"""What a batch makes true: items, reservations, usage, intents; all of it or nothing."""

import asyncio
from contextlib import suppress

import pytest

from tests.contracts.store.world import (
    World,
    call,
    called,
    finished,
    message,
    say,
    stepped,
    waiting,
    written,
)
from zene.domain.errors import Conflict, LeaseLost, NotFound
from zene.domain.events import ItemCompleted, ItemStarted, StepStarted
from zene.domain.messages import Compaction, Message, ToolCall
from zene.domain.quotas import Account
from zene.domain.situation import Granted, Refused
from zene.store import history, schema, tasks, usage


async def test_the_history_is_in_the_order_in_which_things_were_said(world: World) -> None:
    claim = await world.started()
    lease, text, run = claim.lease, world.id("itm"), world.id("itm")
    await world.record(lease, message(lease, text), call(lease, run))
    await world.record(lease, written(lease, text), called(lease, run))
    items = (await world.situation(lease)).items
    assert [item.id for item in items] == [run, text]
    assert isinstance(items[0].content, ToolCall)
    assert items[0].content.result is not None
    assert items[1].content == Message(text="Done.")


async def test_what_is_not_whole_is_no_history(world: World) -> None:
    claim = await world.started()
    lease, left, dropped = claim.lease, world.id("itm"), world.id("itm")
    discarded = ItemCompleted(item_id=dropped, kind="message", status="discarded")
    await world.record(lease, message(lease, left), message(lease, dropped))
    await world.record(lease, say(lease, discarded, item_id=dropped))
    assert (await world.situation(lease)).items == []


async def test_a_compaction_stands_for_all_before_it(world: World) -> None:
    claim = await world.started()
    lease, old, summary, new = claim.lease, *(world.id("itm") for _ in range(3))
    await world.record(lease, message(lease, old), written(lease, old))
    await world.step(lease)
    await world.record(lease, stepped(lease))
    body = ItemCompleted(item_id=summary, kind="compaction", status="completed")
    await world.record(
        lease,
        say(lease, ItemStarted(item_id=summary, kind="compaction"), item_id=summary),
        say(lease, body, item_id=summary, content=Compaction("It went well.")),
        message(lease, new),
        written(lease, new, "And on."),
    )
    situation = await world.situation(lease)
    assert [item.id for item in situation.items] == [summary, new]
    assert situation.counted is None
    whole = await world.store.read(history.all_items, claim.session.id)
    assert [item.id for item in whole] == [old, summary, new]


async def test_a_count_of_the_provider_says_how_much_it_covered(world: World) -> None:
    claim = await world.started()
    lease, before, after = claim.lease, world.id("itm"), world.id("itm")
    await world.record(lease, message(lease, before), written(lease, before))
    await world.step(lease)
    await world.record(lease, message(lease, after), written(lease, after), stepped(lease))
    assert (await world.situation(lease)).counted == (80, 1)


@pytest.mark.parametrize("cap", [8_000, 8_001])
async def test_a_call_gets_its_whole_cap_where_it_just_fits(world: World, cap: int) -> None:
    claim = await world.started(max_tokens_total=10_000)
    recorded = await world.step(claim.lease, bound=2_000, cap=cap)
    assert recorded.grant == Granted(8_000)


@pytest.mark.parametrize(("room", "granted"), [(1_025, 1_025), (1_024, 1_024), (1_023, None)])
async def test_a_cap_is_lowered_to_what_is_left_and_refused_below_the_least(
    world: World, room: int, granted: int | None
) -> None:
    claim = await world.started(max_tokens_total=500 + room)
    lease, item = claim.lease, world.id("itm")
    recorded = await world.record(
        lease,
        message(lease, item),
        written(lease, item),
        say(lease, StepStarted(model="demo:")),
        reserve=500,
        output_cap=16_384,
    )
    assert recorded.grant == (Refused("exhausted") if granted is None else Granted(granted))
    said = [event.type for event in recorded.events]
    assert said == [
        "item.started",
        "item.completed",
        "step.started" if granted else "task.finished",
    ]


async def test_used_and_reserved_never_exceed_the_limit(world: World) -> None:
    claim = await world.started(max_tokens_total=10_000)

    async def spend(number: int) -> None:
        if isinstance((await world.step(claim.lease, number, bound=700, cap=2_000)).grant, Granted):
            task, reserved = await world.task(claim.task), schema.tasks.c.reserved
            held = await world.value(reserved, schema.tasks, claim.task.id)
            assert task.usage.total + held <= 10_000
            await world.record(claim.lease, stepped(claim.lease, number, tokens=(600, 900)))

    with suppress(LeaseLost):  # a call that may never be made has ended the task
        for number in range(1, 30, 2):
            await asyncio.gather(spend(number), spend(number + 1))
    task = await world.task(claim.task)
    assert task.outcome == "budget_exhausted"
    assert 6_000 < task.usage.total <= 10_000
    assert await world.value(schema.tasks.c.reserved, schema.tasks, claim.task.id) == 0


async def test_a_step_is_settled_once(world: World) -> None:
    claim = await world.started()
    await world.step(claim.lease)
    await world.record(claim.lease, stepped(claim.lease, cost=0.25))
    recorded = await world.record(claim.lease, stepped(claim.lease, cost=0.25))
    assert recorded.events == []
    task = await world.task(claim.task)
    assert (task.usage.input_tokens, task.usage.output_tokens, task.cost) == (80, 20, 0.25)


async def test_usage_is_told_by_day_and_model_with_what_is_reserved(world: World) -> None:
    claim = await world.started()
    user_id = claim.lease.user_id
    await world.step(claim.lease)
    await world.record(claim.lease, stepped(claim.lease))
    world.now += 24 * 3600 * 1000
    await world.step(claim.lease, 2)
    await world.record(claim.lease, stepped(claim.lease, 2, tokens=(1, 2)))
    await world.step(claim.lease, 3, bound=10, cap=5)
    found = await world.store.read(usage.usage_of, user_id, world.now)
    assert (found.account.used, found.account.reserved) == (103, 15)
    assert found.by_day == [("2027-01-16", 3), ("2027-01-15", 100)]
    assert found.by_model == [("demo:", 103)]
    other = await world.user()
    nothing = await world.store.read(usage.usage_of, other.id, world.now)
    assert nothing.account == Account(used=0, reserved=0, limit=None)


async def test_an_intent_is_written_once_and_told_to_the_next_run(world: World) -> None:
    claim = await world.started()
    item = world.id("itm")
    await world.record(claim.lease, call(claim.lease, item), intents=[item])
    assert (await world.situation(claim.lease)).begun == {item}
    with pytest.raises(Conflict):
        await world.record(claim.lease, intents=[item])


async def test_a_refused_intent_takes_its_whole_batch_back(world: World) -> None:
    claim = await world.started()
    item = world.id("itm")
    before = await world.log(claim.session.id)
    with pytest.raises(Conflict):
        await world.record(claim.lease, message(claim.lease, item), intents=[world.id("itm")])
    assert await world.log(claim.session.id) == before
    assert await world.count(schema.items) == 0


async def test_the_first_batch_of_a_claim_runs_the_task(world: World) -> None:
    claim = await world.started()
    assert (await world.task(claim.task)).status == "preparing"
    await world.record(claim.lease, message(claim.lease, world.id("itm")))
    assert (await world.task(claim.task)).status == "running"


async def test_a_task_that_waits_holds_neither_worker_nor_place(world: World) -> None:
    claim = await world.started()
    await world.record(claim.lease, waiting(claim.lease, "input"), worked_ms=70)
    task = await world.task(claim.task)
    assert (task.status, task.waiting_on, task.worked_ms) == ("waiting", "input", 70)
    assert await world.value(schema.users.c.active, schema.users, claim.lease.user_id) == 0
    world.now += 16_000
    assert await world.sweep() == []


async def test_a_call_is_found_by_either_of_its_names(world: World) -> None:
    claim = await world.started()
    lease, item = claim.lease, world.id("itm")
    await world.record(lease, call(lease, item), called(lease, item, "seven"))
    session_id = claim.session.id
    by_item = await world.store.read(history.find_call, session_id, item)
    by_name = await world.store.read(history.find_call, session_id, f"call-{item}")
    owned = await world.store.read(history.find_item, lease.user_id, session_id, item)
    assert by_item == by_name == owned
    assert (owned.item_id, owned.output) == (item, "seven")


async def test_a_batch_that_comes_again_is_known_and_answered_the_same(world: World) -> None:
    claim = await world.started()
    lease, text, run = claim.lease, world.id("itm"), world.id("itm")
    begins = (say(lease, StepStarted(model="demo:")),)
    items = (stepped(lease), message(lease, text), written(lease, text), call(lease, run))
    ends = (called(lease, run), finished(lease))
    for drafts, options in (
        (begins, {"reserve": 100, "output_cap": 50}),
        (items, {"intents": (run,)}),
        (ends, {}),
    ):
        name = world.id("bat")
        first = await world.record(lease, *drafts, batch_id=name, **options)
        before = await world.log(lease.session_id)
        again = await world.record(lease, *drafts, batch_id=name, **options)
        assert again == first
        assert await world.log(lease.session_id) == before
    assert (await world.task(claim.task)).usage.input_tokens == 80
    assert await world.value(schema.users.c.active, schema.users, lease.user_id) == 0


async def test_a_batch_that_comes_again_while_it_is_being_recorded_is_recorded_once(
    world: World,
) -> None:
    claim = await world.started()
    for drafts in ((message(claim.lease, world.id("itm")),), (finished(claim.lease),)):
        name = world.id("bat")
        first, *others = await asyncio.gather(
            *(world.record(claim.lease, *drafts, batch_id=name) for _ in range(5))
        )
        assert others == [first] * 4
    types = await world.types(claim.session.id)
    assert types == [
        "task.queued",
        "task.started",
        "item.started",
        "item.completed",
        "task.finished",
    ]
    assert await world.value(schema.users.c.active, schema.users, claim.lease.user_id) == 0


async def test_a_batch_of_before_is_refused_once_another_has_the_lease(world: World) -> None:
    claim = await world.started()
    drafts = (message(claim.lease, world.id("itm")),)
    await world.record(claim.lease, *drafts, batch_id="1.1")
    world.now += 20_000
    await world.sweep()
    (second,) = await world.claim()
    await world.record(second.lease, message(second.lease, world.id("itm")), batch_id="3.1")
    with pytest.raises(LeaseLost):
        await world.record(claim.lease, *drafts, batch_id="1.1")


async def test_a_nul_in_a_name_or_an_id_hurts_nobody(world: World) -> None:
    claim = await world.started()
    lease, item = claim.lease, world.id("itm")
    body = ItemStarted(item_id=item, kind="command", call_id="a\0b", name="shell")
    content = ToolCall(call_id="a\0b", name="shell", arguments='{"command":"a\\u0000b"}')
    await world.record(lease, say(lease, body, item_id=item, content=content))
    [kept] = (await world.situation(lease)).items
    assert kept.content == content
    await world.fails(NotFound, tasks.request_cancel, lease.user_id, "tsk_\0", world.now)

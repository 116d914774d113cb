"""What a user says to a task is heard once, before its next step, or stands at its end."""

import asyncio

import pytest

from tests.contracts.store.world import (
    World,
    call,
    called,
    finished,
    message,
    say,
    stepped,
    written,
)  # fmt: skip
from zene.domain.errors import Conflict, NotFound, TooMany
from zene.domain.events import Draft, ItemCompleted, ItemStarted, StepStarted
from zene.domain.messages import ToolCall, UserMessage
from zene.domain.situation import Steer, Unheard
from zene.domain.tasks import Lease, Task
from zene.store import schema, steers


async def steer(world: World, task: Task, text: str = "Be brief.") -> str:
    """What its owner says."""
    said = await world.store.write(
        steers.steer, task.user_id, task.id, world.id("itm"), text, world.now
    )
    return said.id


async def refused(world: World, task: Task) -> None:
    error = await world.fails(
        Conflict, steers.steer, task.user_id, task.id, world.id("itm"), "No.", world.now
    )
    assert error.code == "not_running"


async def unheard(world: World, task: Task) -> list[Steer]:
    return list(await world.store.read(steers.unheard, task.id))


def heard(lease: Lease, steer_id: str, text: str = "Be brief.", step: int = 1) -> list[Draft]:
    """What the loop says when it hears it."""
    start = ItemStarted(item_id=steer_id, kind="user_message")
    end = ItemCompleted(item_id=steer_id, kind="user_message", status="completed", text=text)
    return [
        say(lease, start, item_id=steer_id, step=step),
        say(lease, end, item_id=steer_id, content=UserMessage(text), step=step),
    ]


async def test_what_is_heard_is_taken_in_the_unit_that_says_it(world: World) -> None:
    claim = await world.started()
    lease = claim.lease
    first, second = await steer(world, claim.task), await steer(world, claim.task, "And kind.")
    assert await unheard(world, claim.task) == [
        Steer(id=first, text="Be brief."),
        Steer(id=second, text="And kind."),
    ]
    await world.step(lease)
    await world.record(lease, stepped(lease), call(lease, "itm_c"))
    begin = say(lease, StepStarted(model="demo:"), step=2)
    drafts = [called(lease, "itm_c"), *heard(lease, first), begin]
    await world.record(lease, *drafts, reserve=100, output_cap=50)
    assert await unheard(world, claim.task) == [Steer(id=second, text="And kind.")]
    situation = await world.situation(lease)
    assert [type(item.content) for item in situation.items] == [ToolCall, UserMessage]
    log = await world.log(claim.session.id)
    taken = await world.value(schema.steers.c.taken_seq, schema.steers, first)
    assert (log[taken - 1].type, log[taken - 1].item_id) == ("item.completed", first)


async def test_a_success_that_has_not_heard_everything_is_none(world: World) -> None:
    claim = await world.started()
    lease = claim.lease
    await world.step(lease)
    await world.record(lease, message(lease, "itm_m"))
    said = await steer(world, claim.task)
    end = [written(lease, "itm_m"), stepped(lease), finished(lease)]
    recorded = await world.record(lease, *end)
    assert recorded.grant == Unheard()
    assert [event.type for event in recorded.events] == ["item.completed", "step.finished"]
    assert (await world.task(claim.task)).status == "running"
    assert await world.value(schema.users.c.active, schema.users, lease.user_id) == 1
    await world.record(lease, *heard(lease, said))
    assert (await world.finish(lease)).grant is None
    assert (await world.task(claim.task)).outcome == "succeeded"
    assert await world.value(schema.users.c.active, schema.users, lease.user_id) == 0
    assert await world.count(schema.items) == 2


@pytest.mark.parametrize("outcome", ["failed", "budget_exhausted", "timed_out"])
async def test_what_a_task_did_not_hear_stands_at_its_end(world: World, outcome: str) -> None:
    claim = await world.started()
    await world.step(claim.lease)
    said = await steer(world, claim.task)
    assert (await world.finish(claim.lease, outcome)).grant is None  # type: ignore[arg-type]  # outcomes
    assert await unheard(world, claim.task) == []
    log = await world.log(claim.session.id)
    assert [(each.type, each.item_id) for each in log[-3:]] == [
        ("item.started", said), ("item.completed", said), ("task.finished", None),
    ]  # fmt: skip
    await world.submit(claim.session)
    (following,) = await world.claim()
    situation = await world.situation(following.lease)
    assert [item.content for item in situation.items] == [UserMessage("Be brief.")]


async def test_a_cancel_goes_before_what_was_not_heard(world: World) -> None:
    claim = await world.started()
    await steer(world, claim.task)
    await world.cancel(claim.task)
    await refused(world, claim.task)
    assert (await world.finish(claim.lease)).grant is None
    assert (await world.task(claim.task)).outcome == "cancelled"
    assert await unheard(world, claim.task) == []


async def test_a_task_that_was_never_started_or_has_ended_hears_nothing(world: World) -> None:
    task = await world.submit(await world.session(await world.user()))
    await refused(world, task)
    (claim,) = await world.claim()
    await world.finish(claim.lease)
    await refused(world, task)


async def test_a_task_hears_also_what_was_said_while_it_waited(world: World) -> None:
    claim = await world.started()
    await world.asked(claim)
    said = await steer(world, claim.task)
    assert [each.id for each in await unheard(world, claim.task)] == [said]
    await world.cancel(claim.task)
    log = await world.log(claim.session.id)
    assert [each.type for each in log if each.item_id == said] == ["item.started", "item.completed"]


async def test_what_was_said_survives_a_dead_worker(world: World) -> None:
    claim = await world.started()
    said = await steer(world, claim.task)
    world.now += 16_000
    await world.sweep()
    other = await steer(world, claim.task, "Still there?")
    (again,) = await world.claim()
    assert [each.id for each in await unheard(world, again.task)] == [said, other]


async def test_of_an_end_and_a_word_at_once_the_word_is_refused_or_heard(world: World) -> None:
    for _ in range(10):
        claim = await world.started()
        ended, said = await asyncio.gather(
            world.finish(claim.lease), steer(world, claim.task), return_exceptions=True
        )
        assert not isinstance(ended, BaseException)
        if isinstance(said, Conflict):
            assert ended.grant is None
        else:
            assert ended.grant == Unheard()
            assert [each.id for each in await unheard(world, claim.task)] == [said]


async def test_a_task_has_not_heard_more_than_it_can_keep(world: World) -> None:
    claim = await world.started()
    for _ in range(steers.MOST_UNHEARD):
        await steer(world, claim.task)
    with pytest.raises(TooMany):
        await steer(world, claim.task)


async def test_nobody_else_steers(world: World) -> None:
    claim, other = await world.started(), await world.user()
    await world.fails(
        NotFound, steers.steer, other.id, claim.task.id, world.id("itm"), "Mine.", world.now
    )
    assert await unheard(world, claim.task) == []

"""Endings: exactly one, from every state, with everything closed that was open."""

import asyncio

import pytest

from tests.contracts.store.world import (
    World,
    call,
    called,
    finished,
    message,
    question,
    stepped,
    waiting,
    written,
)
from zene.domain.errors import NotFound
from zene.domain.events import Event
from zene.domain.tasks import Task
from zene.store import schema, tasks


def completed(events: list[Event]) -> dict[str, str]:
    """Status by item, of all that was completed."""
    found = [event for event in events if event.type == "item.completed"]
    return {
        event.item_id or "": bytes(event.data).decode().split('"status":"')[1].split('"')[0]
        for event in found
    }


async def test_what_is_open_is_closed_before_the_end(world: World) -> None:
    claim = await world.started()
    lease, text, begun, waits, done = claim.lease, *(world.id("itm") for _ in range(4))
    await world.step(lease)
    await world.record(lease, call(lease, begun), call(lease, waits), call(lease, done))
    await world.record(lease, message(lease, text), called(lease, done), intents=[begun])
    await world.finish(lease, "failed")
    events = await world.log(claim.session.id)
    assert completed(events) == {
        text: "discarded", begun: "interrupted", waits: "interrupted", done: "succeeded",
    }  # fmt: skip
    assert events[-1].type == "task.finished"
    started = {event.item_id for event in events if event.type == "item.started"}
    assert started == set(completed(events))
    assert "step.finished" in [event.type for event in events]


async def test_an_end_tells_what_the_whole_task_used(world: World) -> None:
    claim = await world.started()
    await world.step(claim.lease)
    await world.record(claim.lease, stepped(claim.lease, cost=0.5))
    await world.step(claim.lease, 2)
    recorded = await world.finish(claim.lease)
    data = bytes(recorded.events[-1].data)
    assert b'"input_tokens":180' in data
    assert b'"cost":0.5' in data
    task = await world.task(claim.task)
    assert (task.outcome, task.usage.output_tokens, task.usage.estimated) == ("succeeded", 70, True)


async def queued(world: World) -> Task:
    return await world.submit(await world.session(await world.user()))


async def preparing(world: World) -> Task:
    return (await world.started()).task


async def running(world: World) -> Task:
    claim = await world.started()
    await world.step(claim.lease)
    return claim.task


async def asking(world: World) -> Task:
    claim = await world.started()
    await world.asked(claim)
    return claim.task


async def pausing(world: World) -> Task:
    claim = await world.started()
    await world.record(claim.lease, waiting(claim.lease, "pause"))
    return claim.task


@pytest.mark.parametrize("state", [queued, asking, pausing])
async def test_a_task_that_no_worker_has_is_cancelled_at_once(world: World, state: object) -> None:
    assert callable(state)
    task, events, has_worker = await world.cancel(await state(world))
    assert (task.status, task.outcome, has_worker) == ("finished", "cancelled", False)
    assert events[-1].type == "task.finished"
    assert await world.claim() == []


@pytest.mark.parametrize("state", [preparing, running])
async def test_a_task_that_a_worker_has_is_cancelled_by_it(world: World, state: object) -> None:
    assert callable(state)
    task, events, has_worker = await world.cancel(await state(world))
    assert (task.status, list(events), has_worker) == ("cancelling", [], True)


async def test_a_cancelled_task_ends_as_cancelled_whatever_its_worker_says(world: World) -> None:
    claim = await world.started()
    await world.cancel(claim.task)
    recorded = await world.finish(claim.lease, "failed")
    task = await world.task(claim.task)
    assert (task.outcome, task.error) == ("cancelled", None)
    assert b'"outcome":"cancelled"' in bytes(recorded.events[-1].data)


async def test_no_model_call_begins_once_a_cancel_was_answered(world: World) -> None:
    claim = await world.started()
    await world.cancel(claim.task)
    recorded = await world.step(claim.lease)
    assert "step.started" not in [event.type for event in recorded.events]
    assert await world.count(schema.model_calls) == 0


async def test_a_cancelled_task_does_not_wait(world: World) -> None:
    claim = await world.started()
    await world.cancel(claim.task)
    await world.record(claim.lease, waiting(claim.lease))
    assert (await world.task(claim.task)).outcome == "cancelled"


async def test_cancelling_twice_is_cancelling_once(world: World) -> None:
    task = await queued(world)
    await asyncio.gather(*(world.cancel(task) for _ in range(5)))
    types = await world.types(task.session_id)
    assert types == ["task.queued", "task.finished"]


async def test_a_finished_task_stays_as_it_is(world: World) -> None:
    claim = await world.started()
    await world.finish(claim.lease)
    task, events, has_worker = await world.cancel(claim.task)
    assert (task.outcome, list(events), has_worker) == ("succeeded", [], False)


async def test_a_task_is_its_owners_alone(world: World) -> None:
    task, other = await queued(world), await world.user()
    with pytest.raises(NotFound):
        await world.store.read(tasks.get_task, other.id, task.id)
    with pytest.raises(NotFound):
        await world.store.read(tasks.list_tasks, other.id, task.session_id, None, 10)
    with pytest.raises(NotFound):
        await world.store.write(
            tasks.submit,
            id=world.id("tsk"),
            user_id=other.id,
            session_id=task.session_id,
            prompt="Mine.",
            model=None,
            effort=None,
            max_tokens_total=None,
            now=world.now,
        )


async def test_a_place_in_the_queue_is_told_while_it_is_queued(world: World) -> None:
    claim = await world.started()
    waiting_tasks = [await world.submit(claim.session) for _ in range(3)]
    found, cursor = await world.store.read(
        tasks.list_tasks, claim.lease.user_id, claim.session.id, None, 3
    )
    assert [(task.id, place) for task, place in found] == [
        (claim.task.id, None), (waiting_tasks[0].id, 1), (waiting_tasks[1].id, 2),
    ]  # fmt: skip
    rest, end = await world.store.read(
        tasks.list_tasks, claim.lease.user_id, claim.session.id, cursor, 3
    )
    assert ([task.id for task, _ in rest], end) == ([waiting_tasks[2].id], None)


async def test_only_the_owner_cancels(world: World) -> None:
    task, other = await queued(world), await world.user()
    await world.fails(NotFound, tasks.request_cancel, other.id, task.id, world.now)
    assert (await world.task(task)).status == "queued"


async def test_cancelling_a_follow_up_leaves_the_running_task_its_lease(world: World) -> None:
    claim = await world.started()
    follow_up = await world.submit(claim.session)
    await world.cancel(follow_up)
    item = world.id("itm")
    await world.record(claim.lease, message(claim.lease, item), written(claim.lease, item))
    await world.finish(claim.lease)


async def test_an_end_withdraws_what_was_asked(world: World) -> None:
    claim = await world.started()
    lease, item, approval_id = claim.lease, world.id("itm"), world.id("apr")
    until = world.now + 1000
    await world.record(lease, call(lease, item), question(lease, item, approval_id, until))
    recorded = await world.record(lease, finished(lease, "timed_out"))
    assert [event.type for event in recorded.events] == [
        "item.completed", "approval.expired", "task.finished",
    ]  # fmt: skip
    assert completed(list(recorded.events)) == {item: "denied"}
    assert (await world.approval(claim, approval_id)).status == "withdrawn"


async def test_every_end_frees_the_users_place(world: World) -> None:
    user = await world.user()
    for outcome in ("succeeded", "failed", "cancelled", "budget_exhausted", "timed_out"):
        await world.submit(await world.session(user))
        (claim,) = await world.claim(user_cap=1)
        await world.finish(claim.lease, outcome)
    assert await world.value(schema.users.c.active, schema.users, user.id) == 0

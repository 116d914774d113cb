"""What can be done before a task begins: change it, move it, withdraw it; and a submit that does not wait."""

import asyncio
from random import Random

import pytest

from tests.contracts.store.world import World
from zene.domain.errors import Conflict, NotFound
from zene.domain.events import Event
from zene.domain.sessions import Session
from zene.domain.tasks import Task
from zene.store import queue, schema, tasks, unstarted
from zene.store.unstarted import Change


async def change(world: World, task: Task, **changes: object) -> tuple[Task, int | None]:
    """What its owner does."""
    to = Change(**changes)  # type: ignore[arg-type]  # by their names
    changed, position, _ = await world.store.write(
        unstarted.change, task.user_id, task.id, to, world.now
    )
    return changed, position


async def order(world: World, session: Session) -> list[str]:
    """The session's unfinished tasks as they stand, whose positions and mark are right."""
    found = await world.store.read(tasks.unfinished, session.id)
    queued = [position for task, position in found if task.status == "queued"]
    assert queued == list(range(len(found)))[-len(queued) :]
    heads = [
        task.id
        for task, _ in found
        if await world.value(schema.tasks.c.is_head, schema.tasks, task.id)
    ]
    assert heads == [found[0][0].id]
    return [task.id for task, _ in found]


async def withdraw(world: World, task: Task) -> Task:
    """What its owner does."""
    gone, _ = await world.store.write(unstarted.withdraw, task.user_id, task.id, world.now)
    return gone


def told(events: list[Event]) -> list[tuple[str, str | None]]:
    """The events of tasks, and whose they are."""
    return [(event.type, event.task_id) for event in events if event.type.startswith("task.")]


async def test_what_is_named_changes_and_the_log_says_so(world: World) -> None:
    session = await world.session(await world.user())
    task = await world.submit(session, max_tokens_total=1000)
    changed, position = await change(world, task, prompt="Mend that.", priority=5)
    assert (changed.prompt, changed.priority, changed.max_tokens_total) == ("Mend that.", 5, 1000)
    assert (changed.model, position) == (task.model, 0)
    last = (await world.log(session.id))[-1]
    assert (last.type, bytes(last.data)) == (
        "task.updated",
        b'{"prompt":"Mend that.","priority":5}',
    )
    (claim,) = await world.claim()
    assert claim.task.prompt == "Mend that."


async def test_a_change_of_nothing_says_nothing(world: World) -> None:
    session = await world.session(await world.user())
    task = await world.submit(session)
    before = await world.log(session.id)
    await change(world, task)
    assert await world.log(session.id) == before


@pytest.mark.parametrize("seed", range(4))
async def test_a_task_goes_right_before_the_one_that_is_named(world: World, seed: int) -> None:
    random = Random(seed)
    session = await world.session(await world.user())
    made = {task.id: task for task in [await world.submit(session) for _ in range(6)]}
    expected = list(made)
    for _ in range(12):
        moved, other = random.choice(expected), random.choice(expected)
        _, position = await change(world, made[moved], before=other)
        if moved != other:
            expected.remove(moved)
            expected.insert(expected.index(other), moved)
        assert position == expected.index(moved)
        assert await order(world, session) == expected
    started = []
    while got := await world.claim(limit=9):
        started += [claim.task.id for claim in got]
        await asyncio.gather(*(world.finish(claim.lease) for claim in got))
    assert started == expected


async def test_what_was_started_is_neither_changed_nor_passed(world: World) -> None:
    claim = await world.started()
    waits = await world.submit(claim.session)
    await world.asked(claim)
    for task, to in (
        (claim.task, Change(prompt="Else.")),
        (claim.task, Change(before=waits.id)),
        (waits, Change(before=claim.task.id)),
    ):
        error = await world.fails(Conflict, unstarted.change, task.user_id, task.id, to, world.now)
        assert error.code == "already_started"
    assert await order(world, claim.session) == [claim.task.id, waits.id]
    assert "task.updated" not in await world.types(claim.session.id)


async def test_a_task_of_another_session_is_none_to_go_before(world: World) -> None:
    user = await world.user()
    one, two = [await world.submit(await world.session(user)) for _ in range(2)]
    to = Change(before=two.id)
    await world.fails(Conflict, unstarted.change, user.id, one.id, to, world.now)
    stranger = (await world.user()).id
    await world.fails(NotFound, unstarted.change, stranger, one.id, to, world.now)
    await world.fails(NotFound, unstarted.withdraw, stranger, one.id, world.now)


async def test_nothing_passes_more_tasks_than_one_unit_may_move(world: World) -> None:
    session = await world.session(await world.user())
    for _ in range(queue.MOST_PASSED // 20):
        await asyncio.gather(*(world.submit(session) for _ in range(20)))
    last = await world.submit(session)
    first, second, *_ = await order(world, session)
    to = Change(before=first)
    error = await world.fails(Conflict, unstarted.change, session.user_id, last.id, to, world.now)
    assert error.code == "queue_too_long"
    _, position = await change(world, last, before=second)
    assert position == 1


async def test_a_withdrawn_task_ends_cancelled_once(world: World) -> None:
    session = await world.session(await world.user())
    first, second = await world.submit(session), await world.submit(session)
    for _ in range(2):
        gone = await withdraw(world, first)
        assert (gone.status, gone.outcome, gone.started_at) == ("finished", "cancelled", None)
    assert [kind for kind, task in told(await world.log(session.id)) if task == first.id] == [
        "task.queued", "task.finished",
    ]  # fmt: skip
    (claim,) = await world.claim(limit=5)
    assert claim.task.id == second.id
    error = await world.fails(Conflict, unstarted.withdraw, session.user_id, second.id, world.now)
    assert error.code == "already_started"
    await world.finish(claim.lease)
    await world.fails(Conflict, unstarted.withdraw, session.user_id, second.id, world.now)


async def test_a_submit_that_does_not_wait_is_refused_while_the_session_works(
    world: World,
) -> None:
    session = await world.session(await world.user())
    first = await world.submit(session, on_busy="reject")
    with pytest.raises(Conflict) as caught:
        await world.submit(session, on_busy="reject")
    assert caught.value.code == "session_busy"
    assert await order(world, session) == [first.id]
    await world.cancel(first)
    assert (await world.submit(session, on_busy="reject")).status == "queued"


async def test_an_interrupt_cancels_what_is_worked_on_and_goes_first(world: World) -> None:
    claim = await world.started()
    session = claim.session
    waits = [await world.submit(session) for _ in range(2)]
    urgent = await world.submit(session, on_busy="interrupt")
    assert (await world.task(claim.task)).status == "cancelling"
    behind = [urgent.id, *(task.id for task in waits)]
    assert await order(world, session) == [claim.task.id, *behind]
    assert await world.claim(limit=5) == []
    await world.finish(claim.lease)
    assert (await world.task(claim.task)).outcome == "cancelled"
    assert await order(world, session) == behind
    (claim,) = await world.claim(limit=5)
    assert claim.task.id == urgent.id


async def test_an_interrupt_ends_at_once_what_waits_for_a_person(world: World) -> None:
    claim = await world.started()
    approval = await world.asked(claim)
    behind = await world.submit(claim.session)
    urgent = await world.submit(claim.session, on_busy="interrupt")
    assert (await world.task(claim.task)).outcome == "cancelled"
    assert (await world.approval(claim, approval.id)).status == "withdrawn"
    log = told(await world.log(claim.session.id))
    assert log[-2:] == [("task.finished", claim.task.id), ("task.queued", urgent.id)]
    assert await order(world, claim.session) == [urgent.id, behind.id]


async def test_an_interrupt_cancels_nothing_that_was_never_started(world: World) -> None:
    session = await world.session(await world.user())
    first = await world.submit(session, on_busy="interrupt")
    second = await world.submit(session, on_busy="interrupt")
    assert await order(world, session) == [second.id, first.id]


async def test_of_a_claim_and_a_change_at_once_one_comes_first(world: World) -> None:
    session = await world.session(await world.user())
    first, second = await world.submit(session), await world.submit(session)
    moved, got = await asyncio.gather(
        change(world, second, before=first.id), world.claim(), return_exceptions=True
    )
    assert not isinstance(got, BaseException)
    (claim,) = got or await world.claim()
    expected = first.id if isinstance(moved, Conflict) else second.id
    assert claim.task.id == expected

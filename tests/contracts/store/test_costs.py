"""What a task costs the store: statements, each of which is a round trip on PostgreSQL."""

from collections.abc import Callable
from typing import Any

from tests.contracts.store.world import World, message, say, written
from zene.domain.events import StepStarted, TaskFinished
from zene.store import claims, history, recording
from zene.store.base import Unit


def counted(unit: Callable[..., Unit[Any]], seen: list[int]) -> Callable[..., Unit[Any]]:
    """The same unit; how many statements it took comes to `seen`."""

    def counting(*args: Any, **kwargs: Any) -> Unit[Any]:
        running, rows, count = unit(*args, **kwargs), None, 0
        try:
            while True:
                rows = yield next(running) if rows is None else running.send(rows)
                count += 1
        except StopIteration as end:
            seen.append(count)
            return end.value

    return counting


async def claimed(world: World, number: int) -> tuple[list[claims.Claim], int]:
    """Claim a task of each of so many new users; the statements of that."""
    for _ in range(number):
        await world.submit(await world.session(await world.user()), 1)
    seen: list[int] = []
    handed_out = await world.store.write(
        counted(claims.claim, seen),
        worker="one",
        home="here",
        now=world.now,
        lease_seconds=15,
        limit=number,
        user_cap=4,
    )
    assert len(handed_out.claims) == number
    return list(handed_out.claims), seen[-1]


async def test_many_tasks_are_claimed_with_the_statements_of_one(world: World) -> None:
    _, one = await claimed(world, 1)
    _, many = await claimed(world, 16)
    assert (one, many) == (6, 6)


async def test_a_task_begins_with_one_look_and_ends_in_six_statements(world: World) -> None:
    [claim], _ = await claimed(world, 1)
    seen: list[int] = []
    await world.store.read(counted(history.situation, seen), claim.task, "auto", claim.history_from)
    assert seen.pop() == 1
    item_id = world.id("itm")
    recorded = await world.store.write(
        counted(recording.record, seen),
        claim.lease,
        [
            message(claim.lease, item_id),
            written(claim.lease, item_id),
            say(claim.lease, StepStarted(model="demo:")),
        ],
        batch_id="1.1",
        reserve=1000,
        output_cap=4096,
        now=world.now,
    )
    assert recorded.events[-1].type == TaskFinished.type
    assert seen.pop() == 6

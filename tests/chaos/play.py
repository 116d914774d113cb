"""One play: people at work while faults happen, then quiet, then the witnesses."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from time import monotonic

from msgspec import Struct

from tests.chaos import witness
from tests.chaos.faults import happen
from tests.chaos.people import Audience, Person, Play
from tests.chaos.scene import PEOPLE, Scene, staged
from tests.postgres_server import PostgresServer

_TAKE_OVERS = (
    "SELECT count(*) FROM events WHERE type = 'task.resumed' AND data LIKE '%lease_expired%'"
)


class Report(Struct, frozen=True):
    """What happened: nothing of it is a violation, or the play would have failed."""

    seed: int
    seconds: float
    faults: dict[str, int]
    tasks: int
    outcomes: dict[str, int]
    take_overs: int
    decided: int
    cancelled: int
    events: int
    model_calls: int


async def play(
    folder: Path, postgres: PostgresServer, *, seed: int, seconds: float, only: Sequence[str] = ()
) -> Report:
    """Raises Violated, or whatever a person should not have been answered with."""
    async with staged(folder, postgres, seed) as scene:
        faults = Counter[str]()
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            its = Play(Audience(group))
            its.audience.enter(witness.watch(scene))
            await _act(scene, its, seconds, partial(happen, told=faults, only=only))
            await witness.all_ended(scene, its.diary)
            outcomes = await witness.check(scene, its.diary)
            its.audience.leave()
        taken = await scene.postgres.ask(_TAKE_OVERS, scene.database)
        return Report(
            seed=seed,
            seconds=round(monotonic() - began, 1),
            faults=dict(faults),
            tasks=len(its.diary.accepted),
            outcomes=dict(outcomes),
            take_overs=taken[0][0],
            decided=its.diary.decided,
            cancelled=its.diary.cancelled,
            events=sum(map(len, its.diary.seen.values())),
            model_calls=len(scene.model.requests),
        )


async def _act(
    scene: Scene, its: Play, seconds: float, faults: Callable[..., Coroutine[None, None, None]]
) -> None:
    """People work and faults happen for so long; approvals are answered to the end."""
    over = asyncio.Event()
    people = [Person(scene, number, its) for number in range(PEOPLE)]
    for person in people:
        its.audience.enter(person.decide())
    async with asyncio.TaskGroup() as acting:
        for person in people:
            acting.create_task(person.work(over))
        acting.create_task(faults(scene, over))
        await asyncio.sleep(seconds)
        over.set()

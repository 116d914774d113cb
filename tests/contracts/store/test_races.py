"""Units against themselves and each other, all at once: what must hold between rows holds afterwards."""

import asyncio
import random
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tests.contracts.store.world import World, finished, look
from zene.domain.errors import Conflict, LeaseLost, NotFound
from zene.store import (
    claims,
    idempotency,
    queue,
    schema,
    sessions,
    steers,
    tasks,
    unstarted,
    users,
)
from zene.store.base import Statement, Unit
from zene.store.idempotency import Answer, Key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from zene.domain.sessions import Session
    from zene.domain.tasks import Lease, Task

REFUSALS = (Conflict, LeaseLost, NotFound)
LEASED = Statement(
    select(schema.users.c.id, schema.users.c.active, func.count(schema.tasks.c.id))
    .select_from(
        schema.users.outerjoin(
            schema.tasks,
            (schema.tasks.c.user_id == schema.users.c.id) & schema.tasks.c.lease_epoch.is_not(None),
        )
    )
    .group_by(schema.users.c.id, schema.users.c.active)
)


class Storm:
    """Everything that gateways, workers and sweeps do, in an order that a seed chooses."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.sessions: list[Session] = []
        self.tasks: list[Task] = []
        self.leases: list[Lease] = []

    async def submit(self) -> None:
        self.tasks.append(await self.world.submit(self.random.choice(self.sessions)))

    async def claim(self) -> None:
        found = await self.world.claim(limit=4, user_cap=2)
        self.leases += [claim.lease for claim in found]

    async def finish(self) -> None:
        if self.leases:
            lease = self.random.choice(self.leases)
            await self.world.record(lease, finished(lease))

    async def hand_over(self) -> None:
        if self.leases:
            lease = self.random.choice(self.leases)
            await self.world.store.write(claims.hand_over, lease, now=self.world.now, worked_ms=1)

    async def cancel(self) -> None:
        if self.tasks:
            await self.world.cancel(self.random.choice(self.tasks))

    async def interrupt(self) -> None:
        session = self.random.choice(self.sessions)
        self.tasks.append(await self.world.submit(session, on_busy="interrupt"))

    async def change(self) -> None:
        if len(self.tasks) > 1:
            task, other = self.random.sample(self.tasks, 2)
            to = unstarted.Change(before=other.id)
            await self.world.store.write(
                unstarted.change, task.user_id, task.id, to, self.world.now
            )

    async def withdraw(self) -> None:
        if self.tasks:
            task = self.random.choice(self.tasks)
            await self.world.store.write(unstarted.withdraw, task.user_id, task.id, self.world.now)

    async def steer(self) -> None:
        if self.leases:
            lease = self.random.choice(self.leases)
            await self.world.store.write(
                steers.steer,
                lease.user_id,
                lease.task_id,
                self.world.id("itm"),
                "No.",
                self.world.now,
            )

    async def sweep(self) -> None:
        self.world.now += 4_000
        await self.world.sweep()

    async def delete(self) -> None:
        session = self.random.choice(self.sessions)
        job = self.world.id("job")
        if self.random.random() < 0.1:
            await self.world.store.write(
                sessions.delete_session, session.user_id, session.id, self.world.now, job
            )

    async def blow(self, times: int) -> None:
        """One of the many at once."""
        ways: Sequence[Callable[[], Awaitable[None]]] = (
            self.submit, self.submit, self.claim, self.claim, self.claim, self.finish, self.hand_over,
            self.cancel, self.interrupt, self.change, self.withdraw, self.steer, self.sweep, self.delete,
        )  # fmt: skip
        for _ in range(times):
            try:
                await self.random.choice(ways)()
            except REFUSALS:
                continue


async def test_what_is_counted_is_what_is_there_after_a_storm(world: World) -> None:
    storm = Storm(world, seed=20)
    for _ in range(3):
        user = await world.user()
        storm.sessions += [await world.session(user) for _ in range(3)]
    await asyncio.gather(*(storm.blow(25) for _ in range(8)))
    for _, active, leased in await world.store.read(look, LEASED):
        assert active == leased <= 2
    assert await world.store.read(queue.unmarked, 100) == []
    for session in storm.sessions:
        await world.log(session.id)  # which is gapless
        unfinished = await world.store.read(tasks.unfinished, session.id)
        heads = [
            await world.value(schema.tasks.c.is_head, schema.tasks, task.id)
            for task, _ in unfinished
        ]
        assert heads == [int(number == 0) for number in range(len(heads))]


async def test_many_who_take_back_the_same_lease_free_its_user_once(world: World) -> None:
    user = await world.user()
    for _ in range(3):
        await world.submit(await world.session(user))
    await world.claim(3)
    world.now += 20_000
    swept = await asyncio.gather(*(world.sweep() for _ in range(8)))
    assert sum(map(len, swept)) == 3
    assert await world.value(schema.users.c.active, schema.users, user.id) == 0
    assert len(await world.claim(3)) == 3


async def test_the_first_administrator_is_one_however_many_start_at_once(world: World) -> None:
    made = await asyncio.gather(
        *(
            world.store.write(
                users.create_first, world.id("usr"), f"{n}@example.org", "hash", world.now
            )
            for n in range(8)
        )
    )
    assert sum(user is not None for user in made) == 1
    assert await world.count(schema.users) == 1


async def test_one_key_makes_one_task_however_often_it_comes_at_once(world: World) -> None:
    session = await world.session(await world.user())
    key = Key(user_id=session.user_id, key="again", fingerprint="the same", session_id=session.id)

    def submitted(task_id: str) -> Unit[tuple[Answer, object]]:
        def make() -> Unit[str]:
            made = yield from tasks.submit(
                id=task_id,
                user_id=session.user_id,
                session_id=session.id,
                prompt="Mend it.",
                model=None,
                effort=None,
                max_tokens_total=None,
                now=world.now,
            )
            return made.task.id

        return (yield from idempotency.once(key, world.now, make, str))

    answers = await asyncio.gather(
        *(world.store.write(submitted, world.id("tsk")) for _ in range(8))
    )
    assert sum(answer.is_new for answer, _ in answers) == 1
    assert len({answer.text for answer, _ in answers}) == 1
    assert await world.count(schema.tasks) == 1

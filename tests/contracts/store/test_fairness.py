"""Fairness: nobody's backlog keeps anybody else waiting (G11). Time goes by in rounds, one task's length each."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from tests.contracts.store.world import World
from zene.domain.users import User
from zene.store.claims import Claim

SLOTS, CAP = 8, 4
USERS, EACH, BACKLOG = 20, 5, 200


async def submit(world: World, user: User, number: int) -> None:
    """As many tasks, each in a session of its own."""
    sessions = await asyncio.gather(*(world.session(user) for _ in range(number)))
    await asyncio.gather(*map(world.submit, sessions))


async def busy(world: World) -> list[User]:
    """Twenty users with something to do, the first of them with very much."""
    users = [await world.user() for _ in range(USERS)]
    for user in users:
        await submit(world, user, BACKLOG if user is users[0] else EACH)
    return users


async def a_round(world: World, running: list[Claim], ends: Sequence[Claim]) -> list[Claim]:
    """Some tasks end, and two workers fill their free slots at once; what was started."""
    await asyncio.gather(*(world.finish(claim.lease) for claim in ends))
    running[:] = [claim for claim in running if claim not in ends]
    free = SLOTS - len(running)
    got = await asyncio.gather(world.claim(free // 2), world.claim(free - free // 2))
    started = [claim for some in got for claim in some]
    running += started
    active = Counter(claim.task.user_id for claim in running)
    assert len(running) == SLOTS
    assert max(active.values()) <= CAP
    return started


def jain(shares: Sequence[int]) -> float:
    """1 where all have the same, 1/n where one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


@pytest.mark.parametrize("seed", range(2))
async def test_users_get_the_same_whatever_they_have_queued(world: World, seed: int) -> None:
    users, random = await busy(world), Random(seed)
    starts: Counter[str] = Counter({user.id: 0 for user in users})
    running: list[Claim] = []
    while max(starts[user.id] for user in users[1:]) < EACH:
        ends = [claim for claim in running if random.random() < 0.5]
        starts.update(claim.task.user_id for claim in await a_round(world, running, ends))
    assert jain(list(starts.values())) >= 0.9


async def test_one_task_waits_for_no_backlog(world: World) -> None:
    await busy(world)
    running: list[Claim] = []
    for _ in range(2):
        await a_round(world, running, list(running))
    late = await world.user()
    await submit(world, late, 1)
    rounds = math.ceil((USERS + 1) / SLOTS) + 1
    for _ in range(rounds):
        started = await a_round(world, running, list(running))
        if late.id in {claim.task.user_id for claim in started}:
            return
    raise AssertionError(f"It has not started after {rounds} rounds.")


async def test_a_backlog_gets_what_nobody_else_wants(world: World) -> None:
    alone, other = await world.user(), await world.user()
    await submit(world, alone, 10)
    await submit(world, other, 1)
    got = Counter(claim.task.user_id for claim in await world.claim(SLOTS, user_cap=6))
    assert got == {alone.id: 6, other.id: 1}


async def test_what_a_dead_worker_had_counts_until_it_is_taken_back(world: World) -> None:
    user = await world.user()
    await submit(world, user, 3 * CAP)
    dead = await world.claim(SLOTS, worker="dead")
    assert len(dead) == CAP
    assert await world.claim(SLOTS) == []
    world.now += 16_000
    _, first = await asyncio.gather(world.sweep(), world.claim(SLOTS))
    again = [*first, *await world.claim(SLOTS)]
    assert [claim.task.id for claim in again] == [claim.task.id for claim in dead]

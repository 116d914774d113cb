"""Jobs are done at least once, by one worker at a time."""

import asyncio

import pytest

from tests.contracts.store.world import World
from zene.domain.errors import LeaseLost
from zene.store import jobs, schema
from zene.store.jobs import Job


async def enqueue(world: World, number: int = 1) -> None:
    await world.store.write(
        jobs.enqueue, f"job_{number}", "delete_session", {"session_id": f"ses_{number}"}, world.now
    )


async def claim(world: World) -> Job | None:
    return await world.store.write(jobs.claim_job, worker="one", now=world.now, lease_seconds=15)


async def taken(world: World) -> Job:
    job = await claim(world)
    assert job is not None
    return job


async def test_a_job_is_one_workers(world: World) -> None:
    for number in range(5):
        await enqueue(world, number)
    found = await asyncio.gather(*(claim(world) for _ in range(8)))
    ids = [job.id for job in found if job is not None]
    assert sorted(ids) == [f"job_{number}" for number in range(5)]


async def test_a_finished_job_is_gone(world: World) -> None:
    await enqueue(world)
    await world.store.write(jobs.finish_job, await taken(world))
    assert await world.count(schema.jobs) == 0


async def test_a_dead_workers_job_is_taken_again(world: World) -> None:
    await enqueue(world)
    old = await taken(world)
    world.now += 10_000
    await world.store.write(jobs.extend_job, old, now=world.now, lease_seconds=15)
    world.now += 14_000
    assert await claim(world) is None
    world.now += 1_000
    new = await taken(world)
    assert (new.id, new.attempt) == (old.id, 2)
    with pytest.raises(LeaseLost):
        await world.store.write(jobs.finish_job, old)


async def test_a_failed_job_is_tried_again_later_each_time(world: World) -> None:
    await enqueue(world)
    waits = []
    for _ in range(12):
        await world.store.write(jobs.fail_job, await taken(world), error="no", now=world.now)
        began = world.now
        while await world.value(schema.jobs.c.due_at, schema.jobs, "job_1") > world.now:
            world.now += 1_000
        waits.append(world.now - began)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1_000, 300_000)


async def test_a_start_makes_due_what_a_dead_process_had(world: World) -> None:
    await enqueue(world)
    old = await taken(world)
    await world.store.write(jobs.take_over_jobs, now=world.now)
    assert (await taken(world)).id == old.id
    with pytest.raises(LeaseLost):
        await world.store.write(jobs.extend_job, old, now=world.now, lease_seconds=15)

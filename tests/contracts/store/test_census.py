"""The census says how much work there is, whatever state that is in."""

from tests.contracts.store.world import World
from zene.domain.tasks import Lease
from zene.store import census
from zene.store.base import Store


async def test_an_empty_installation_has_no_work(store: Store) -> None:
    assert await store.read(census.count) == census.Census(
        tasks={}, leases=0, oldest_queued_at=None
    )


async def test_what_is_not_finished_is_counted_by_status(world: World, store: Store) -> None:
    session = await world.session(await world.user())
    await world.submit(session)
    [claim] = await world.claim()
    world.now += 500
    oldest = world.now
    await world.submit(session)
    world.now += 500
    await world.submit(session)
    found = await store.read(census.count)
    assert found.tasks == {"preparing": 1, "queued": 2}
    assert (found.leases, found.oldest_queued_at) == (1, oldest)
    await world.step(claim.lease)
    assert (await store.read(census.count)).tasks == {"running": 1, "queued": 2}
    await world.finish(claim.lease)
    found = await store.read(census.count)
    assert (found.tasks, found.leases) == ({"queued": 2}, 0)


async def test_leases_are_counted_for_each_worker_that_holds_any(
    world: World, store: Store
) -> None:
    assert await store.read(census.leases) == {}

    async def takes(worker: str) -> Lease:
        await world.submit(await world.session(await world.user()))
        [claim] = await world.claim(worker=worker)
        return claim.lease

    leases = [await takes(worker) for worker in ("one", "one", "two")]
    assert await store.read(census.leases) == {"one": 2, "two": 1}
    await world.finish(leases[-1])
    assert await store.read(census.leases) == {"one": 2}

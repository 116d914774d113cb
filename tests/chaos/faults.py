"""What goes wrong, one thing after another, drawn from one seed; each is mended again."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.chaos.scene import Scene
from tests.many import LEASE_SECONDS, Process
from tests.proxy import Proxy

Fault = Callable[[Scene], Awaitable[None]]


async def kill_a_worker(scene: Scene) -> None:
    """Without a word; another takes its place."""
    worker = _one_of(scene, scene.many.workers)
    scene.many.workers.remove(worker)
    await worker.kill()
    await scene.many.worker()


async def kill_a_gateway(scene: Scene) -> None:
    """It comes back at the same address."""
    gateway = _one_of(scene, scene.many.gateways)
    scene.many.gateways.remove(gateway)
    await gateway.kill()
    await scene.many.gateway(int(gateway.name.rpartition(":")[2]))


async def let_a_worker_end(scene: Scene) -> None:
    """It hands its tasks over, and another takes its place."""
    worker = _one_of(scene, scene.many.workers)
    scene.many.workers.remove(worker)
    worker.send(signal.SIGTERM)
    await scene.many.worker()
    assert (await worker.program.end())[0] == 0


async def freeze_a_worker(scene: Scene) -> None:
    """For longer than its leases last; then it goes on, knowing nothing of that."""
    worker = _one_of(scene, scene.many.workers)
    worker.freeze()
    try:
        await asyncio.sleep(LEASE_SECONDS * scene.random.uniform(1.2, 2))
    finally:
        worker.thaw()


async def flush_redis(scene: Scene) -> None:
    """All that it holds is gone."""
    await scene.redis.ask("FLUSHALL")


async def restart_redis(scene: Scene) -> None:
    """It comes back empty."""
    await scene.redis.restart()


async def restart_postgres(scene: Scene) -> None:
    """As after a power cut."""
    await asyncio.to_thread(scene.postgres.stop)
    await asyncio.to_thread(scene.postgres.start)


async def end_backends(scene: Scene) -> None:
    """Every connection to the database is ended by the database."""
    await scene.postgres.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{scene.database}' AND pid <> pg_backend_pid()"
    )


async def cut_redis(scene: Scene) -> None:
    """Every connection to Redis breaks off."""
    scene.to_redis.cut()


async def cut_postgres(scene: Scene) -> None:
    """Every connection to the database breaks off, in whatever it was."""
    scene.to_postgres.cut()


async def silence_redis(scene: Scene) -> None:
    """Connections to Redis stay open, and nothing comes back over them."""
    await _silenced(scene, scene.to_redis)


async def silence_postgres(scene: Scene) -> None:
    """Connections to the database stay open, and nothing comes back over them."""
    await _silenced(scene, scene.to_postgres)


_ALL: tuple[Fault, ...] = (
    kill_a_worker,
    kill_a_gateway,
    let_a_worker_end,
    freeze_a_worker,
    flush_redis,
    restart_redis,
    restart_postgres,
    end_backends,
    cut_redis,
    cut_postgres,
    silence_redis,
    silence_postgres,
)


FAULTS = {fault.__name__: fault for fault in _ALL}


async def happen(
    scene: Scene, stop: asyncio.Event, told: Counter[str], only: Sequence[str] = ()
) -> None:
    """One fault after another until it is over: all of them, or `only` those, in an order of their own, and
    then again.
    """
    while not stop.is_set():
        order = list(only or FAULTS)
        scene.random.shuffle(order)
        for name in order:
            if stop.is_set():
                return
            await FAULTS[name](scene)
            told[name] += 1
            await asyncio.sleep(scene.random.uniform(0.3, 1.5))


def _one_of(scene: Scene, processes: list[Process]) -> Process:
    return scene.random.choice(processes)


async def _silenced(scene: Scene, between: Proxy) -> None:
    between.hush()
    try:
        await asyncio.sleep(scene.random.uniform(1, 3))
    finally:
        between.cut()

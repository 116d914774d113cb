"""The census: how much work there is and how much is being done, over all workers, as metrics."""

import asyncio
from collections.abc import Callable

from msgspec import Struct
from sqlalchemy import func, select

from zene.domain.errors import ZeneError
from zene.store.base import Statement, Store, Unit
from zene.store.schema import tasks
from zene.telemetry.metrics import Registry

LOOK_SECONDS = 2.0  # how long who reads the metrics waits for the store
STATUSES = ("queued", "preparing", "running", "waiting", "cancelling")

_COUNT = Statement(
    select(
        tasks.c.status, func.count(), func.min(tasks.c.created_at), func.count(tasks.c.lease_epoch)
    )
    .where(tasks.c.status != "finished")
    .group_by(tasks.c.status)
)


_LEASES = Statement(
    select(tasks.c.lease_worker, func.count())
    .where(tasks.c.lease_epoch.is_not(None))
    .group_by(tasks.c.lease_worker)
)


class Census(Struct, frozen=True, kw_only=True):
    """Unfinished tasks by status, the leases that are held, and when the oldest queued task was submitted
    (ms since 1970).
    """

    tasks: dict[str, int]
    leases: int
    oldest_queued_at: int | None


def count() -> Unit[Census]:
    """Count what is not finished."""
    found = yield _COUNT()
    oldest = {status: created_at for status, _, created_at, _ in found}
    return Census(
        tasks={status: number for status, number, _, _ in found},
        leases=sum(leases for *_, leases in found),
        oldest_queued_at=oldest.get("queued"),
    )


def leases() -> Unit[dict[str, int]]:
    """How many leases on tasks each worker holds that holds any."""
    return {worker: number for worker, number in (yield _LEASES())}  # noqa: C416 - rows are no pairs


class CensusMeters:
    """Asks the store each time the metrics are read. One that does not answer is told as such."""

    def __init__(self, registry: Registry, store: Store, *, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._reachable = registry.gauge(
            "zene_store_reachable", "Whether the store answers: 1, or 0."
        )
        self._tasks = registry.gauge(
            "zene_tasks", "Unfinished tasks of the installation, by status.", "status"
        )
        self._queue = registry.gauge(
            "zene_queue_length", "Queued tasks of the installation, which wait for a worker."
        )
        self._oldest = registry.gauge(
            "zene_queue_oldest_seconds",
            "Since the oldest queued task was submitted; 0 where none is.",
        )
        self._leases = registry.gauge(
            "zene_leases_held", "Leases that workers of the installation hold on tasks."
        )
        registry.before_reading(self._look)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                census = await self._store.read(count)
        except (ZeneError, TimeoutError):
            self._reachable.set(0)
            for gauge in (self._tasks, self._queue, self._oldest, self._leases):
                gauge.clear()
            return
        self._reachable.set(1)
        for status in STATUSES:
            self._tasks.set(census.tasks.get(status, 0), status)
        self._queue.set(census.tasks.get("queued", 0))
        now = self._clock()
        self._oldest.set(max(now - (census.oldest_queued_at or now), 0) / 1000)
        self._leases.set(census.leases)

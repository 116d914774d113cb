"""The sweep: finds in the store what nobody told this worker, and what dead owners left behind."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from zene import telemetry
from zene.bus.base import live
from zene.domain.errors import NotFound
from zene.domain.events import Event
from zene.domain.tasks import Lease
from zene.store import (
    approvals,
    claims,
    credentials,
    idempotency,
    jobs,
    queue,
    sessions,
    shortage,
)
from zene.worker.desk import Desk, now_ms
from zene.worker.runner import Runner
from zene.worker.shortage import resume_waiting

SWEEP_SECONDS = 1.0
MARK_SECONDS = 30.0  # between looks for sessions whose head is not marked as ready
BATCH = 100  # rows one unit looks at
KEPT_SECONDS = 24 * 3600  # idempotency keys

log = telemetry.logger(__name__)


class Sweep:
    """Ends expired leases and approvals, resumes what waited for tokens, cancels what was asked to be cancelled, drops idle benches."""

    def __init__(self, desk: Desk, runners: Mapping[Lease, Runner]) -> None:
        self._desk = desk
        self._runners = runners
        self._mark_at = 0

    async def take_over(self) -> None:
        """At the start of the only worker of a data folder: every lease there is belongs to the dead."""
        desk, now = self._desk, now_ms()
        await self._publish(await desk.store.write(claims.take_over_all, now=now))
        await desk.store.write(jobs.take_over_jobs, now=now)
        known_sessions, known_projects = await desk.store.read(sessions.known)
        await desk.workspaces.reap(known_sessions, known_projects)

    async def tick(self) -> float:
        """One round; seconds until the next."""
        store, now = self._desk.store, now_ms()
        swept = await store.write(claims.sweep_leases, now=now, limit=BATCH)
        for session_id, _ in swept:
            if not any(r.session_id == session_id for r in self._runners.values()):
                await self._desk.benches.drop(session_id)
        await self._publish(swept)
        await self._publish(await store.write(approvals.expire, now=now, limit=BATCH))
        for user_id in await store.read(shortage.short_users, now=now, limit=BATCH):
            await resume_waiting(self._desk, user_id)
        await store.write(idempotency.forget, before=now - KEPT_SECONDS * 1000, limit=BATCH)
        await store.write(credentials.forget, now=now, limit=BATCH)
        await self._cancel()
        await self._mark(now)
        await self._desk.benches.drop_idle()
        return SWEEP_SECONDS

    async def _cancel(self) -> None:
        if self._runners:
            task_ids = [lease.task_id for lease in self._runners]
            wanted = await self._desk.store.read(claims.cancelling, task_ids)
            for lease, runner in list(self._runners.items()):
                if lease.task_id in wanted:
                    runner.cancel()

    async def _mark(self, now: int) -> None:
        if now < self._mark_at:
            return
        self._mark_at = now + round(MARK_SECONDS * 1000)
        for session_id in await self._desk.store.read(queue.unmarked, BATCH):
            with suppress(NotFound):
                await self._desk.store.write(queue.mark, session_id, now)

    async def _publish(self, swept: Iterable[tuple[str, list[Event]]]) -> None:
        for session_id, events in swept:
            await self._desk.bus.publish(session_id, [live(event) for event in events])
            log.info("task.swept", session=session_id)
        await self._desk.bus.wake()

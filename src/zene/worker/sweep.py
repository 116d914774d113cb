"""The sweep: finds in the store what nobody told this worker, and what dead owners left behind."""

import asyncio
from collections.abc import Mapping

from zene import telemetry
from zene.domain.tasks import Lease
from zene.store import claims, jobs, sessions, shortage
from zene.sweeping import BATCH, Sweeping, Swept
from zene.worker.desk import Desk, now_ms
from zene.worker.runner import Runner
from zene.worker.shortage import resume_waiting

SWEEP_SECONDS = 1.0

log = telemetry.logger(__name__)


class Sweep:
    """Ends what has expired, takes back what the dead had, resumes what waited for tokens, cancels what was
    asked to be cancelled, drops idle benches.
    """

    def __init__(self, desk: Desk, runners: Mapping[Lease, Runner]) -> None:
        self._desk = desk
        self._runners = runners
        self._sweeping = Sweeping(desk.store, desk.bus)

    async def begin(self) -> None:
        """At the start, before anything is claimed: bury the dead, remove the workspaces that nobody knows."""
        await self._bury_all()
        known_sessions, known_projects = await self._desk.store.read(sessions.known)
        await self._desk.workspaces.reap(known_sessions, known_projects)

    async def tick(self) -> float:
        """One round; seconds until the next."""
        await self._bury_all()
        await self._let_go(await self._sweeping.round())
        for user_id in await self._desk.store.read(shortage.short_users, now=now_ms(), limit=BATCH):
            await resume_waiting(self._desk, user_id)
        await self._cancel()
        await self._desk.benches.drop_idle()
        return SWEEP_SECONDS

    async def _bury_all(self) -> None:
        for name in await asyncio.to_thread(self._desk.roll.dead):
            await self._bury(name)

    async def _bury(self, name: str) -> None:
        """Take back at once what a dead worker of this folder had; nothing of it can go on."""
        store, now = self._desk.store, now_ms()
        await self._desk.benches.reap()
        swept = await store.write(claims.take_over_from, worker=name, now=now)
        await store.write(jobs.take_over_jobs_from, worker=name, now=now)
        await self._sweeping.publish(swept)
        await self._let_go(swept)
        self._desk.roll.strike(name)
        tell = log.warning if swept else log.info  # one that ended in good order is here, too
        tell("worker.gone", worker=name, tasks=len(swept))

    async def _let_go(self, swept: Swept) -> None:
        """Of sessions whose leases were taken back. What runs for one that goes on is killed by its next
        owner, before it touches the workspace; here that would hit the next owner's.
        """
        for session_id, events in swept:
            if any(runner.session_id == session_id for runner in self._runners.values()):
                continue
            if any(event.type == "task.finished" for event in events):
                await self._desk.benches.drop(session_id)
            else:
                await self._desk.benches.close_one(session_id)

    async def _cancel(self) -> None:
        if self._runners:
            task_ids = [lease.task_id for lease in self._runners]
            wanted = await self._desk.store.read(claims.cancelling, task_ids)
            for lease, runner in list(self._runners.items()):
                if lease.task_id in wanted:
                    runner.cancel()

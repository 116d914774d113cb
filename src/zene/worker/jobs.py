"""Jobs: work without an agent. They are leased and retried like tasks, and done again from the start."""

from zene import telemetry
from zene.domain.errors import ZeneError
from zene.store import jobs, projects, sessions
from zene.store.jobs import Job
from zene.worker.desk import Desk, now_ms

LOOK_SECONDS = 1.0
PURGE_ROWS = (
    1000  # rows that one unit removes or changes, so that no other waits long for the writer
)

log = telemetry.logger(__name__)


class Jobs:
    """Runs jobs one at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def tick(self) -> float:
        """Run what is ready; seconds until the next look."""
        desk = self._desk
        while True:
            job = await desk.store.write(
                jobs.claim_job,
                worker=desk.name,
                now=now_ms(),
                lease_seconds=desk.terms.lease_seconds,
            )
            if job is None:
                return LOOK_SECONDS
            await self._run(job)

    async def _run(self, job: Job) -> None:
        store = self._desk.store
        try:
            if job.kind == "delete_session":
                await self._delete_session(job)
            else:
                await self._delete_project(job)
        except ZeneError as err:
            log.warning("job.failed", job=job.id, kind=job.kind, error=err.message)
            await store.write(jobs.fail_job, job, error=err.message, now=now_ms())
        else:
            log.info("job.finished", job=job.id, kind=job.kind)
            await store.write(jobs.finish_job, job)

    async def _delete_session(self, job: Job) -> None:
        desk, session_id = self._desk, job.payload["session_id"]
        await desk.benches.drop(session_id)
        await desk.workspaces.delete(session_id)
        await desk.outputs.delete(session_id)
        while await desk.store.write(sessions.purge_session, session_id, limit=PURGE_ROWS):
            await self._extend(job)

    async def _delete_project(self, job: Job) -> None:
        desk, project_id = self._desk, job.payload["project_id"]
        await desk.workspaces.delete_project(project_id)
        while await desk.store.write(projects.purge_project, project_id, limit=PURGE_ROWS):
            await self._extend(job)

    async def _extend(self, job: Job) -> None:
        await self._desk.store.write(
            jobs.extend_job,
            job,
            now=now_ms(),
            lease_seconds=self._desk.terms.lease_seconds,
        )

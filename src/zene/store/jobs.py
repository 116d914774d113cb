"""Jobs: work for a worker without an agent. They are leased and retried until they succeed.

A job is due at a time. Whoever takes it moves that time to the end of the lease and raises the epoch, so
that one statement finds what is new, what is to be retried and what a dead worker left.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct
from sqlalchemy import bindparam, delete, insert, select, update

from zene.domain.errors import LeaseLost
from zene.store.base import Rows, Statement, Unit
from zene.store.schema import jobs

Kind = Literal["delete_session", "delete_project"]

_FIRST_RETRY_MS = 1_000
_LAST_RETRY_MS = 300_000

_ENQUEUE = Statement(
    insert(jobs).values(
        id=bindparam("id"),
        kind=bindparam("kind"),
        payload=bindparam("payload"),
        due_at=bindparam("now"),
        created_at=bindparam("now"),
    )
)
_due = (
    select(jobs.c.id)
    .where(jobs.c.due_at <= bindparam("now"))
    .order_by(jobs.c.due_at)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_CLAIM = Statement(
    update(jobs)
    .where(jobs.c.id == _due, jobs.c.due_at <= bindparam("now"))
    .values(
        worker=bindparam("by"),
        epoch=jobs.c.epoch + 1,
        attempt=jobs.c.attempt + 1,
        due_at=bindparam("until"),
    )
    .returning(jobs.c.id, jobs.c.kind, jobs.c.payload, jobs.c.epoch, jobs.c.attempt)
)
_held = (jobs.c.id == bindparam("job"), jobs.c.epoch == bindparam("at_epoch"))
_EXTEND = Statement(
    update(jobs).where(*_held).values(due_at=bindparam("until")).returning(jobs.c.id)
)
_FAIL = Statement(
    update(jobs)
    .where(*_held)
    .values(worker=None, error=bindparam("why"), due_at=bindparam("until"))
    .returning(jobs.c.id)
)
_FINISH = Statement(delete(jobs).where(*_held).returning(jobs.c.id))
_TAKE_OVER = Statement(
    update(jobs)
    .where(jobs.c.worker.is_not(None))
    .values(worker=None, epoch=jobs.c.epoch + 1, due_at=bindparam("now"))
)
_TAKE_OVER_FROM = Statement(
    update(jobs)
    .where(jobs.c.worker == bindparam("of"))
    .values(worker=None, epoch=jobs.c.epoch + 1, due_at=bindparam("now"))
)


class Job(Struct, frozen=True, kw_only=True):
    """A job that a worker has taken; `attempt` counts from 1."""

    id: str
    kind: Kind
    payload: Mapping[str, str]
    epoch: int
    attempt: int


def enqueue(job_id: str, kind: Kind, payload: Mapping[str, str], now: int) -> Unit[None]:
    """Have it done, from now on."""
    text = msgspec.json.encode(payload).decode()
    yield _ENQUEUE(id=job_id, kind=kind, payload=text, now=now)


def claim_job(*, worker: str, now: int, lease_seconds: float) -> Unit[Job | None]:
    """Take the job that has been due for longest; None when there is none."""
    rows = yield _CLAIM(by=worker, now=now, until=now + round(lease_seconds * 1000))
    if not rows:
        return None
    job_id, kind, payload, epoch, attempt = rows[0]
    return Job(
        id=job_id,
        kind=kind,
        payload=msgspec.json.decode(payload, type=dict[str, str]),
        epoch=epoch,
        attempt=attempt,
    )


def extend_job(job: Job, *, now: int, lease_seconds: float) -> Unit[None]:
    """Keep it. Raises LeaseLost."""
    _held_or_lost((yield _EXTEND(**_key(job), until=now + round(lease_seconds * 1000))))


def finish_job(job: Job) -> Unit[None]:
    """It is done; nothing is kept of it. Raises LeaseLost."""
    _held_or_lost((yield _FINISH(**_key(job))))


def fail_job(job: Job, *, error: str, now: int) -> Unit[None]:
    """Have it tried again, later each time. Raises LeaseLost."""
    wait = min(_FIRST_RETRY_MS * 2 ** min(job.attempt - 1, 20), _LAST_RETRY_MS)
    _held_or_lost((yield _FAIL(**_key(job), why=error, until=now + wait)))


def take_over_jobs(*, now: int) -> Unit[None]:
    """Make due what any worker has: where no worker lives that could have one."""
    yield _TAKE_OVER(now=now)


def take_over_jobs_from(*, worker: str, now: int) -> Unit[None]:
    """Make due what a worker has that is known to be dead."""
    yield _TAKE_OVER_FROM(of=worker, now=now)


def _key(job: Job) -> dict[str, str | int]:
    return {"job": job.id, "at_epoch": job.epoch}


def _held_or_lost(rows: Rows) -> None:
    if not rows:
        raise LeaseLost("The job was given to another worker.")

"""Approvals: asked by a worker's batch, decided once by a person, used once by the call they bind.

A decision that was the task's last open question puts the task back into the queue in the same unit.
"""

from operator import itemgetter

from sqlalchemy import bindparam, exists, select, text, update

from zene.domain.approvals import Approval, ApprovalStatus, Decision, Scope
from zene.domain.errors import Conflict, NotFound
from zene.domain.events import ApprovalDecided, ApprovalExpired, Draft, Event, TaskResumed
from zene.store import rows
from zene.store.base import Statement, Unit
from zene.store.log import Writer, held
from zene.store.schema import approvals, tasks

_LIST = Statement(
    select(*rows.APPROVAL)
    .where(
        approvals.c.user_id == bindparam("user"),
        approvals.c.status == bindparam("state"),
        approvals.c.id > bindparam("after"),
    )
    .order_by(approvals.c.id)
    .limit(bindparam("limit"))
)
_GET = Statement(
    select(*rows.APPROVAL).where(
        approvals.c.id == bindparam("approval"), approvals.c.user_id == bindparam("user")
    )
)
_PENDING_OF = Statement(
    select(*rows.APPROVAL)
    .where(approvals.c.session_id == bindparam("session"), approvals.c.status == "pending")
    .order_by(approvals.c.id)
)
_DECIDE = Statement(
    update(approvals)
    .where(
        approvals.c.id == bindparam("approval"),
        approvals.c.status == "pending",
        approvals.c.expires_at > bindparam("now"),
    )
    .values(
        status=bindparam("state"),
        scope=bindparam("reach"),
        note=bindparam("said"),
        decided_by=bindparam("user"),
        decided_at=bindparam("now"),
    )
    .returning(*rows.APPROVAL)
)
_ADD_RULE = Statement(
    text(
        "INSERT INTO rules (session_id, tool, created_at) VALUES (:session, :tool, :now)"
        " ON CONFLICT (session_id, tool) DO NOTHING"
    )
)
_pending = exists().where(approvals.c.task_id == bindparam("task"), approvals.c.status == "pending")
_RESUME = Statement(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"),
        tasks.c.status == "waiting",
        tasks.c.waiting_on == "approval",
        ~_pending,
    )
    .values(status="queued", waiting_on=None)
    .returning(tasks.c.id)
)
_OVERDUE = Statement(
    select(
        approvals.c.id,
        approvals.c.session_id,
        approvals.c.task_id,
        approvals.c.item_id,
        approvals.c.user_id,
    )
    .where(approvals.c.status == "pending", approvals.c.expires_at <= bindparam("now"))
    .order_by(approvals.c.expires_at)
    .limit(bindparam("limit"))
)
_EXPIRE = Statement(
    update(approvals)
    .where(approvals.c.id == bindparam("approval"), approvals.c.status == "pending")
    .values(status="expired", decided_at=bindparam("now"))
    .returning(approvals.c.id)
)


def list_approvals(
    user_id: str, status: ApprovalStatus, cursor: str | None, limit: int
) -> Unit[tuple[list[Approval], str | None]]:
    """The user's approvals of one status over all sessions, oldest first, and the next page's cursor."""
    found = yield _LIST(user=user_id, state=status, after=cursor or "", limit=limit + 1)
    page = [rows.approval(row) for row in found[:limit]]
    return page, page[-1].id if len(found) > limit else None


def pending_of(session_id: str) -> Unit[list[Approval]]:
    """What a session waits for, for whoever has been let in."""
    return [rows.approval(row) for row in (yield _PENDING_OF(session=session_id))]


def decide(
    user_id: str, approval_id: str, *, decision: Decision, scope: Scope, note: str, now: int
) -> Unit[tuple[Approval, list[Event], bool]]:
    """Answer; the approval, what is to be published, and whether the task is queued again.

    Raises NotFound, and Conflict where it has been decided, withdrawn or is too late.
    """
    found = yield _GET(approval=approval_id, user=user_id)
    if not found:
        raise NotFound("There is no such approval.")
    asked = rows.approval(found[0])
    writer = yield from held(asked.session_id, now)
    decided = yield _DECIDE(
        approval=approval_id,
        state="allowed" if decision == "allow" else "denied",
        reach=scope,
        said=note,
        user=user_id,
        now=now,
    )
    if not decided:
        raise Conflict(
            "This call was decided before, or nobody waits for it any more.", code="already_decided"
        )
    if decision == "allow" and scope == "session":
        yield _ADD_RULE(session=asked.session_id, tool=asked.name, now=now)
    body = ApprovalDecided(
        approval_id=approval_id, decision=decision, scope=scope, by=user_id, note=note
    )
    writer.add(Draft(body=body, task_id=asked.task_id, item_id=asked.item_id))
    resumed = yield from resume(writer, asked.task_id)
    return rows.approval(decided[0]), (yield from writer.flush()), resumed


def expire(*, now: int, limit: int) -> Unit[list[tuple[str, list[Event]]]]:
    """End what nobody has answered in time: those calls count as denied."""
    swept = []
    overdue = yield _OVERDUE(now=now, limit=limit)
    # In one order, so that no two who do this wait in a circle.
    for approval_id, session_id, task_id, item_id, _ in sorted(overdue, key=itemgetter(4, 1)):
        writer = yield from held(session_id, now)
        if not (yield _EXPIRE(approval=approval_id, now=now)):
            continue
        body = ApprovalExpired(approval_id=approval_id)
        writer.add(Draft(body=body, task_id=task_id, item_id=item_id))
        yield from resume(writer, task_id)
        swept.append((session_id, (yield from writer.flush())))
    return swept


def resume(writer: Writer, task_id: str) -> Unit[bool]:
    """Queue a task that waits for approvals again where nothing of it is asked any more."""
    resumed = yield _RESUME(task=task_id)
    if resumed:
        writer.add(Draft(body=TaskResumed(reason="approval"), task_id=task_id))
    return bool(resumed)

"""Sessions: their rows, their lists and their end."""

from sqlalchemy import Table, bindparam, delete, func, insert, select, tuple_, update

from zene.domain.errors import NotFound
from zene.domain.events import Draft, Event, SessionCreated, SessionDeleted, SessionUpdated
from zene.domain.sessions import ApprovalPolicy, Session
from zene.store import ending, rows
from zene.store.base import Statement, Unit
from zene.store.jobs import enqueue
from zene.store.log import held
from zene.store.projects import get_project
from zene.store.schema import (
    approvals,
    events,
    idempotency,
    items,
    model_calls,
    projects,
    rules,
    sessions,
    steers,
    tasks,
)

_OWNED = (sessions.c.user_id == bindparam("user"), sessions.c.deleted_at.is_(None))
_CREATE = Statement(
    insert(sessions).values(
        id=bindparam("session"),
        user_id=bindparam("user"),
        project_id=bindparam("project"),
        title=bindparam("named"),
        model=bindparam("by"),
        effort=bindparam("how_hard"),
        approval_policy=bindparam("policy"),
        created_at=bindparam("now"),
        updated_at=bindparam("now"),
    )
)
_GET = Statement(
    select(*rows.SESSION, *rows.SESSION_STATUS).where(
        sessions.c.id == bindparam("session"), *_OWNED
    )
)
_LIST = Statement(
    select(*rows.SESSION, *rows.SESSION_STATUS)
    .where(sessions.c.id < bindparam("before"), *_OWNED)
    .order_by(sessions.c.id.desc())
    .limit(bindparam("limit"))
)
_LIST_OF_PROJECT = Statement(
    select(*rows.SESSION, *rows.SESSION_STATUS)
    .where(
        sessions.c.id < bindparam("before"), sessions.c.project_id == bindparam("project"), *_OWNED
    )
    .order_by(sessions.c.id.desc())
    .limit(bindparam("limit"))
)
_UPDATE = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("session"), *_OWNED)
    .values(
        title=func.coalesce(bindparam("new_title"), sessions.c.title),
        model=func.coalesce(bindparam("new_model"), sessions.c.model),
        effort=func.coalesce(bindparam("new_effort"), sessions.c.effort),
        approval_policy=func.coalesce(bindparam("new_policy"), sessions.c.approval_policy),
    )
    .returning(sessions.c.id)
)
_UNFINISHED = Statement(
    select(tasks.c.id, tasks.c.lease_epoch)
    .where(tasks.c.session_id == bindparam("session"), tasks.c.status != "finished")
    .order_by(tasks.c.place)
)
_DELETE = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("session"), *_OWNED)
    .values(deleted_at=bindparam("now"), lease_epoch=sessions.c.lease_epoch + 1)
    .returning(sessions.c.id)
)
_ALL = Statement(select(sessions.c.id))
_ALL_PROJECTS = Statement(select(projects.c.id))
_LAST = "zzz"  # after every id


def create_session(  # noqa: PLR0913 - what a session has
    *,
    id: str,  # noqa: A002 - the field's name
    user_id: str,
    project_id: str | None,
    title: str,
    model: str,
    effort: str | None,
    approval_policy: ApprovalPolicy,
    now: int,
) -> Unit[tuple[Session, list[Event]]]:
    """Begin a session. Raises NotFound for a project that is not the user's."""
    if project_id is not None:
        yield from get_project(user_id, project_id)
    yield _CREATE(
        session=id,
        user=user_id,
        project=project_id,
        named=title,
        by=model,
        how_hard=effort,
        policy=approval_policy,
        now=now,
    )
    writer = yield from held(id, now)
    writer.add(Draft(body=SessionCreated(title=title, project_id=project_id, model=model)))
    written = yield from writer.flush()
    return (yield from get_session(user_id, id)), written


def get_session(user_id: str, session_id: str) -> Unit[Session]:
    """The user's session. Raises NotFound."""
    found = yield _GET(session=session_id, user=user_id)
    if not found:
        raise NotFound("There is no such session.")
    return rows.session(found[0])


def list_sessions(
    user_id: str, cursor: str | None, limit: int, project_id: str | None = None
) -> Unit[tuple[list[Session], str | None]]:
    """The user's sessions, newest first, of one project or of all, and the cursor of the next page."""
    page = {"user": user_id, "before": cursor or _LAST, "limit": limit + 1}
    if project_id is None:
        found = yield _LIST(**page)
    else:
        found = yield _LIST_OF_PROJECT(project=project_id, **page)
    sessions_found = [rows.session(row) for row in found[:limit]]
    return sessions_found, sessions_found[-1].id if len(found) > limit else None


def update_session(  # noqa: PLR0913 - what can be changed
    user_id: str,
    session_id: str,
    *,
    title: str | None = None,
    model: str | None = None,
    effort: str | None = None,
    approval_policy: ApprovalPolicy | None = None,
    now: int,
) -> Unit[tuple[Session, list[Event]]]:
    """Change what is named; running tasks go on as they began. Raises NotFound."""
    changed = yield _UPDATE(
        session=session_id,
        user=user_id,
        new_title=title,
        new_model=model,
        new_effort=effort,
        new_policy=approval_policy,
    )
    if not changed:
        raise NotFound("There is no such session.")
    writer = yield from held(session_id, now)
    body = SessionUpdated(title=title, model=model, effort=effort, approval_policy=approval_policy)
    writer.add(Draft(body=body))
    written = yield from writer.flush()
    return (yield from get_session(user_id, session_id)), written


def delete_session(user_id: str, session_id: str, now: int, job_id: str) -> Unit[list[Event]]:
    """End a session: its tasks, its lease and everybody's sight of it; a job removes what is left.
    Raises NotFound.
    """
    yield from get_session(user_id, session_id)
    yield ending.LOCK_USER(user=user_id)
    writer = yield from held(session_id, now)
    unfinished = yield _UNFINISHED(session=session_id)
    if any(epoch is not None for _, epoch in unfinished):
        yield ending.RELEASE_USER(user=user_id)
    for task_id, _ in unfinished:
        yield from ending.finish(writer, task_id, "cancelled", now=now)
    writer.add(Draft(body=SessionDeleted()))
    written = yield from writer.flush()
    if not (yield _DELETE(session=session_id, user=user_id, now=now)):
        raise NotFound("There is no such session.")
    yield from enqueue(job_id, "delete_session", {"session_id": session_id}, now)
    return written


def known() -> Unit[tuple[list[str], list[str]]]:
    """Every session and every project that has a row, deleted ones too: whose files may be there."""
    found = yield _ALL()
    projects_found = yield _ALL_PROJECTS()
    return [row[0] for row in found], [row[0] for row in projects_found]


def _purges(table: Table) -> Statement:
    """Remove some of a table's rows of one session."""
    key = tuple_(*table.primary_key)
    some = (
        select(*table.primary_key)
        .where(table.c.session_id == bindparam("session"))
        .limit(bindparam("limit"))
    )
    return Statement(delete(table).where(key.in_(some)).returning(*table.primary_key))


# Whatever names a task goes before it.
_PURGES = tuple(
    map(_purges, (events, items, approvals, model_calls, rules, idempotency, steers, tasks))
)
_PURGE_SESSION = Statement(
    delete(sessions).where(
        sessions.c.id == bindparam("session"), sessions.c.deleted_at.is_not(None)
    )
)


def purge_session(session_id: str, *, limit: int) -> Unit[bool]:
    """Remove at most `limit` rows of a deleted session, and last its own; whether there are more."""
    left = limit
    for statement in _PURGES:
        removed = yield statement(session=session_id, limit=left)
        left -= len(removed)
        if left <= 0:
            return True
    yield _PURGE_SESSION(session=session_id)
    return False

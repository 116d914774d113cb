"""Tasks as their users see them: submitted, looked at, cancelled."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from msgspec import Struct
from sqlalchemy import bindparam, case, func, insert, select, update

from zene.domain.errors import Conflict, NotFound
from zene.domain.events import Draft, Event, TaskQueued
from zene.domain.tasks import FROM, OnBusy, Task
from zene.store import ending, rows
from zene.store.base import Row, Statement, Unit
from zene.store.columns import ANY_OF_THEM, chunks, one_of
from zene.store.log import Writer, held
from zene.store.queue import go_first
from zene.store.schema import sessions, tasks

CANCEL_MS = 3000  # what a worker gets to end what it has, before others do

_OWN_SESSION = Statement(
    select(sessions.c.model, sessions.c.effort).where(
        sessions.c.id == bindparam("session"),
        sessions.c.user_id == bindparam("user"),
        sessions.c.deleted_at.is_(None),
    )
)
_INSERT = Statement(
    insert(tasks).values(
        id=bindparam("task"),
        session_id=bindparam("session"),
        user_id=bindparam("user"),
        place=bindparam("seq"),
        prompt=bindparam("text"),
        model=bindparam("named"),
        effort=bindparam("how_hard"),
        status="queued",
        priority=bindparam("urgency"),
        trace_id=bindparam("trace"),
        is_head=bindparam("leads"),
        max_tokens_total=bindparam("most"),
        created_at=bindparam("now"),
    )
)
_ahead = tasks.alias("ahead")
_POSITION = (
    select(func.count())
    .where(
        _ahead.c.session_id == tasks.c.session_id,
        _ahead.c.status != "finished",
        _ahead.c.place < tasks.c.place,
    )
    .scalar_subquery()
)
_UNFINISHED = Statement(
    select(func.count()).where(
        tasks.c.session_id == bindparam("session"), tasks.c.status != "finished"
    )
)
_owned = (
    sessions.c.id == tasks.c.session_id,
    sessions.c.user_id == bindparam("user"),
    sessions.c.deleted_at.is_(None),
)
_GET = Statement(
    select(*rows.TASK, _POSITION)
    .join(sessions, _owned[0])
    .where(tasks.c.id == bindparam("task"), *_owned[1:])
)
_LIST = Statement(
    select(*rows.TASK, _POSITION)
    .join(sessions, _owned[0])
    .where(
        tasks.c.session_id == bindparam("session"),
        tasks.c.id > bindparam("after"),
        *_owned[1:],
    )
    .order_by(tasks.c.id)
    .limit(bindparam("limit"))
)
_LIST_UNFINISHED = Statement(
    select(*rows.TASK)
    .where(tasks.c.session_id == bindparam("session"), tasks.c.status != "finished")
    .order_by(tasks.c.place)
)
_QUEUES = Statement(
    select(tasks.c.session_id, tasks.c.id, tasks.c.status)
    .where(tasks.c.session_id.in_(ANY_OF_THEM), tasks.c.status != "finished")
    .order_by(tasks.c.session_id, tasks.c.place)
)
_CANCEL_LEASED = Statement(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"), one_of(tasks.c.status, *FROM["cancelling"], "cancelling")
    )
    .values(
        status="cancelling",
        lease_expires_at=case(
            (tasks.c.lease_expires_at > bindparam("until"), bindparam("until")),
            else_=tasks.c.lease_expires_at,
        ),
    )
    .returning(tasks.c.id)
)


_WORKED_ON = Statement(
    select(tasks.c.id).where(
        tasks.c.session_id == bindparam("session"),
        tasks.c.status != "finished",
        tasks.c.started_at.is_not(None),
    )
)


class Submitted(Struct, frozen=True, kw_only=True):
    """A task that was accepted, its place in the session, what is to be published, and the task whose
    worker is to be told that it is cancelled.
    """

    task: Task
    position: int
    events: Sequence[Event]
    interrupted: str | None = None


def submit(  # noqa: PLR0913 - what a request has
    *,
    id: str,  # noqa: A002 - the field's name
    user_id: str,
    session_id: str,
    prompt: str,
    model: str | None,
    effort: str | None,
    max_tokens_total: int | None,
    priority: int = 0,
    on_busy: OnBusy = "enqueue",
    trace_id: str | None = None,
    now: int,
) -> Unit[Submitted]:
    """Accept a task: its row, which is its queue entry too, and its first event. Where the session works,
    `interrupt` cancels what it works on or waits with, and goes before what was never started.
    Raises NotFound for a session that is not the user's, Conflict where it works and that is to `reject`.
    """
    own = yield _OWN_SESSION(session=session_id, user=user_id)
    if not own:
        raise NotFound("There is no such session.")
    writer = yield from held(session_id, now)
    position, interrupted = yield from _make_room(writer, on_busy, now)
    body = TaskQueued(prompt=prompt, position=position, trace_id=trace_id)
    seq = writer.add(Draft(body=body, task_id=id))
    yield _INSERT(
        task=id,
        session=session_id,
        user=user_id,
        seq=seq,
        text=prompt,
        named=model or own[0][0],
        how_hard=effort or own[0][1],
        most=max_tokens_total,
        urgency=priority,
        trace=trace_id,
        leads=int(position == 0),
        now=now,
    )
    if on_busy == "interrupt":
        yield from go_first(session_id, id)
    events = yield from writer.flush()
    task, _ = yield from get_task(user_id, id)
    return Submitted(task=task, position=position, events=events, interrupted=interrupted)


def get_task(user_id: str, task_id: str) -> Unit[tuple[Task, int | None]]:
    """A task of the user's and, while it is queued, how many of its session are before it. Raises NotFound."""
    found = yield _GET(task=task_id, user=user_id)
    if not found:
        raise NotFound("There is no such task.")
    return _with_position(found[0])


def list_tasks(
    user_id: str, session_id: str, cursor: str | None, limit: int
) -> Unit[tuple[list[tuple[Task, int | None]], str | None]]:
    """The tasks of the user's session, oldest first, and the cursor of the next page. Raises NotFound."""
    if not (yield _OWN_SESSION(session=session_id, user=user_id)):
        raise NotFound("There is no such session.")
    found = yield _LIST(session=session_id, user=user_id, after=cursor or "", limit=limit + 1)
    page = [_with_position(row) for row in found[:limit]]
    return page, page[-1][0].id if len(found) > limit else None


def unfinished(session_id: str) -> Unit[list[tuple[Task, int | None]]]:
    """The session's unfinished tasks in their order, for whoever has been let in."""
    found = [rows.task(row) for row in (yield _LIST_UNFINISHED(session=session_id))]
    return [(task, at if task.status == "queued" else None) for at, task in enumerate(found)]


def queues(session_ids: Sequence[str]) -> Unit[dict[str, dict[str, int]]]:
    """The queued tasks of those of the sessions that have any: each with how many of its session are before it."""
    found: dict[str, dict[str, int]] = {}
    for some in chunks(session_ids):
        unfinished = yield _QUEUES(**some)
        for session_id, its_own in groupby(unfinished, key=itemgetter(0)):
            queued = {
                task_id: position
                for position, (_, task_id, status) in enumerate(its_own)
                if status == "queued"
            }
            if queued:
                found[session_id] = queued
    return found


def request_cancel(
    user_id: str, task_id: str, now: int
) -> Unit[tuple[Task, Sequence[Event], bool]]:
    """Cancel: at once where no worker has it, else by whoever has; whether one has. A task that has ended
    stays as it is. Raises NotFound.
    """
    task, _ = yield from get_task(user_id, task_id)
    writer = yield from held(task.session_id, now)
    leased = yield from _cancel(writer, task_id, now)
    events = yield from writer.flush()
    task, _ = yield from get_task(user_id, task_id)
    return task, events, leased


def _make_room(writer: Writer, on_busy: OnBusy, now: int) -> Unit[tuple[int, str | None]]:
    """The place of a new task in the session, and the task whose worker is to be told that it is cancelled."""
    if on_busy == "interrupt":
        leased = None
        for (task_id,) in (yield _WORKED_ON(session=writer.session_id)):
            if (yield from _cancel(writer, task_id, now)):
                leased = task_id
        return int(leased is not None), leased
    position: int = (yield _UNFINISHED(session=writer.session_id))[0][0]
    if position and on_busy == "reject":
        raise Conflict("The session has a task that is not finished.", code="session_busy")
    return position, None


def _cancel(writer: Writer, task_id: str, now: int) -> Unit[bool]:
    """End the task, or have it ended by the worker that has it; whether one has. Its lease is cut short, so
    that the sweep ends it where that worker hangs.
    """
    if (yield _CANCEL_LEASED(task=task_id, until=now + CANCEL_MS)):
        return True
    yield from ending.finish(writer, task_id, "cancelled", now=now)
    return False


def _with_position(row: Row) -> tuple[Task, int | None]:
    task = rows.task(row)
    return task, row[-1] if task.status == "queued" else None

"""Claims: who works on what. Users take turns, a session's tasks go in order, an old epoch is refused.

A lease is the epoch of the session's row and a time on the task's. What nobody extends is taken back
from here, not from the bus.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter

from msgspec import Struct
from sqlalchemy import bindparam, case, func, select, update

from zene.domain.events import Draft, ErrorBody, Event, TaskResumed, TaskStarted, envelope
from zene.domain.sessions import Session
from zene.domain.tasks import FROM, POISON_ATTEMPTS, Lease, Task
from zene.domain.times import rfc3339
from zene.store import ending, rows, spending
from zene.store.base import Row, Statement, Unit
from zene.store.columns import ANY_OF_THEM, chunks, one_of
from zene.store.log import Writer, fenced, held, insert_events
from zene.store.queue import (
    FREE_USERS_IN_TURN,
    HEADS,
    IS_AT_HOME,
    IS_FIRST,
    USERS_IN_TURN,
)
from zene.store.schema import sessions, tasks, users

_TAKE_TURN = Statement(
    update(users)
    .where(users.c.id.in_(ANY_OF_THEM))
    .values(
        active=users.c.active + bindparam("more"),
        turn=select(func.max(users.c.turn) + 1).scalar_subquery(),
    )
)
_at_head = (
    select(tasks.c.status)
    .where(tasks.c.session_id == sessions.c.id, tasks.c.status != "finished")
    .order_by(tasks.c.place)
    .limit(1)
    .scalar_subquery()
)
_NEW_EPOCHS = Statement(
    update(sessions)
    .where(
        sessions.c.id.in_(ANY_OF_THEM),
        sessions.c.deleted_at.is_(None),
        IS_AT_HOME,
        _at_head == "queued",
    )
    .values(
        lease_epoch=sessions.c.lease_epoch + 1,
        last_seq=sessions.c.last_seq + 1,  # of the event that the task has started
        updated_at=bindparam("now"),
        home=func.coalesce(sessions.c.home, bindparam("at_home")),
    )
    .returning(*rows.SESSION, sessions.c.history_from, sessions.c.lease_epoch)
)
_STARTED_NOT = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(last_seq=sessions.c.last_seq - 1)
)
_PREPARE = Statement(
    update(tasks)
    .where(
        tasks.c.id.in_(ANY_OF_THEM),
        # What stands bare could be taken for a reason to walk an index of all that is not finished.
        one_of(func.coalesce(tasks.c.status, ""), *FROM["preparing"]),
        IS_FIRST,
    )
    .values(
        status="preparing",
        lease_worker=bindparam("worker"),
        lease_epoch=select(sessions.c.lease_epoch)
        .where(sessions.c.id == tasks.c.session_id)
        .scalar_subquery(),
        lease_expires_at=bindparam("until"),
        started_at=func.coalesce(tasks.c.started_at, bindparam("now")),
    )
    .returning(*rows.TASK)
)
_EXTEND = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"), tasks.c.lease_epoch == bindparam("epoch"))
    .values(
        lease_expires_at=case(
            (tasks.c.status == "cancelling", tasks.c.lease_expires_at), else_=bindparam("until")
        )
    )
    .returning(tasks.c.id)
)
_REQUEUE = Statement(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"),
        one_of(tasks.c.status, "preparing", "running"),
        tasks.c.lease_epoch == bindparam("epoch"),
    )
    .values(
        status="queued",
        attempt=tasks.c.attempt + bindparam("lost"),
        losses=tasks.c.losses + bindparam("lost"),
        worked_ms=tasks.c.worked_ms + bindparam("more_ms"),
        lease_worker=None,
        lease_epoch=None,
        lease_expires_at=None,
    )
    .returning(tasks.c.losses)
)
_LEASED = (tasks.c.id, tasks.c.session_id, tasks.c.user_id, tasks.c.lease_epoch, tasks.c.status)
_EXPIRED = Statement(
    select(*_LEASED)
    .where(tasks.c.lease_epoch.is_not(None), tasks.c.lease_expires_at < bindparam("before"))
    .order_by(tasks.c.lease_expires_at)
    .limit(bindparam("limit"))
)
_ALL_LEASED = Statement(select(*_LEASED).where(tasks.c.lease_epoch.is_not(None)))
_LEASED_TO = Statement(
    select(*_LEASED).where(
        tasks.c.lease_epoch.is_not(None), tasks.c.lease_worker == bindparam("worker")
    )
)
_IS_CANCELLING = Statement(
    select(tasks.c.id).where(tasks.c.id == bindparam("task"), tasks.c.status == "cancelling")
)


_END_THIS_EPOCH = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("session"), sessions.c.lease_epoch == bindparam("epoch"))
    .values(lease_epoch=sessions.c.lease_epoch + 1)
    .returning(sessions.c.id)
)


class Claim(Struct, frozen=True, kw_only=True):
    """A task that was handed out, for the first time or again, and the event of that. The session's history
    counts from `history_from`.
    """

    lease: Lease
    task: Task
    session: Session
    history_from: int
    is_first: bool
    event: Event


class HandedOut(Struct, frozen=True, kw_only=True):
    """What a worker got; whether to ask again. Where others were faster, it may have got nothing."""

    claims: Sequence[Claim]
    may_be_more: bool


def claim(
    *, worker: str, home: str, now: int, lease_seconds: float, limit: int, user_cap: int
) -> Unit[HandedOut]:
    """Hand out what is ready, to users in turn, within every user's cap; one task of a user before the
    second of any. A session's first claim makes `home` its own, and only workers of that one get it then.
    Users that somebody else holds are passed over.
    """
    terms = _Terms(worker, home, now, now + round(lease_seconds * 1000))
    asked = {"cap": user_cap, "limit": limit, "at_home": home}
    room: dict[str, int] = {row[0]: row[1] for row in (yield FREE_USERS_IN_TURN(**asked))}
    if not room:
        return HandedOut(claims=(), may_be_more=bool((yield USERS_IN_TURN(**asked))))
    claims = yield from _lease((yield from _heads(room, limit // len(room), home)), terms)
    yield from insert_events([claim.event for claim in claims], now)
    served = Counter(claim.task.user_id for claim in claims)
    for count in {served[user_id] for user_id in room}:
        for some in chunks([user_id for user_id in room if served[user_id] == count]):
            yield _TAKE_TURN(more=count, **some)
    return HandedOut(claims=claims, may_be_more=True)


def extend(lease: Lease, *, now: int, lease_seconds: float) -> Unit[bool]:
    """Extend the lease, unless its task is being cancelled; False where it is not held any more."""
    until = now + round(lease_seconds * 1000)
    return bool((yield _EXTEND(task=lease.task_id, epoch=lease.epoch, until=until)))


def hand_over(lease: Lease, *, now: int, worked_ms: int) -> Unit[list[Event]]:
    """Give a task back to the queue. Its open calls stay open, for the next run to settle. Raises LeaseLost."""
    yield ending.RELEASE_USER(user=lease.user_id)
    writer = yield from fenced(lease, now)
    yield ending.END_EPOCH(session=lease.session_id)
    yield from _give_back(writer, lease.task_id, lease.epoch, "hand_over", now, worked_ms)
    return (yield from writer.flush())


def sweep_leases(
    *, now: int, limit: int, expired_before: int | None = None
) -> Unit[list[tuple[str, list[Event]]]]:
    """Take back what nobody has extended: back to the queue, or to its end."""
    before = now if expired_before is None else expired_before
    return (yield from _take_back((yield _EXPIRED(before=before, limit=limit)), now))


def take_over_all(*, now: int) -> Unit[list[tuple[str, list[Event]]]]:
    """Take back every lease: where no worker lives that could have one."""
    return (yield from _take_back((yield _ALL_LEASED()), now))


def take_over_from(*, worker: str, now: int) -> Unit[list[tuple[str, list[Event]]]]:
    """Take back every lease of a worker that is known to be dead."""
    return (yield from _take_back((yield _LEASED_TO(worker=worker)), now))


def cancelling(task_ids: Sequence[str]) -> Unit[list[str]]:
    """Which of them somebody wants to be cancelled."""
    found = []
    for task_id in task_ids:
        found += [row[0] for row in (yield _IS_CANCELLING(task=task_id))]
    return found


class _Terms(Struct, frozen=True):
    worker: str
    home: str
    now: int
    until: int


def _heads(room: Mapping[str, int], share: int, home: str) -> Unit[dict[str, str]]:
    """The first tasks of users that are held, and which session each is of."""
    found: dict[str, str] = {}
    for some in chunks([*room]):
        for user_id, heads in (yield HEADS(**some, limit=share, at_home=home)):
            pairs = [] if heads is None else heads.split(",")
            for pair in pairs[: room[user_id]]:
                task_id, session_id = pair.split(" ")
                found[task_id] = session_id
    return found


def _lease(heads: Mapping[str, str], terms: _Terms) -> Unit[list[Claim]]:
    """Lease the tasks, without those that are not their session's next any more."""
    opened: dict[str, tuple[Session, int, int]] = {}
    for some in chunks([*heads.values()]):
        for row in (yield _NEW_EPOCHS(**some, at_home=terms.home, now=terms.now)):
            *known, history_from, epoch = row
            session = rows.session(known)
            opened[session.id] = session, history_from, epoch
    claims = {}
    for some in chunks([task_id for task_id, session_id in heads.items() if session_id in opened]):
        for row in (yield _PREPARE(**some, worker=terms.worker, until=terms.until, now=terms.now)):
            task = rows.task(row)
            claims[task.id] = _claim(task, *opened.pop(task.session_id), terms)
    for session_id in opened:
        yield _STARTED_NOT(session=session_id)
    return [claims[task_id] for task_id in heads if task_id in claims]


def _claim(task: Task, session: Session, history_from: int, epoch: int, terms: _Terms) -> Claim:
    body = TaskStarted(attempt=task.attempt, worker=terms.worker, trace_id=task.trace_id)
    started = Draft(body=body, task_id=task.id)
    return Claim(
        lease=Lease(
            worker=terms.worker,
            session_id=session.id,
            task_id=task.id,
            user_id=task.user_id,
            epoch=epoch,
        ),
        task=task,
        session=session,
        history_from=history_from,
        is_first=task.started_at == terms.now,
        event=envelope(started, session_id=session.id, seq=session.last_seq, ts=rfc3339(terms.now)),
    )


def _take_back(found: Sequence[Row], now: int) -> Unit[list[tuple[str, list[Event]]]]:
    swept = []
    for task_id, session_id, user_id, epoch, status in sorted(found, key=itemgetter(2, 1)):
        yield ending.LOCK_USER(user=user_id)
        if not (yield _END_THIS_EPOCH(session=session_id, epoch=epoch)):
            continue  # somebody else has taken it back
        yield ending.RELEASE_USER(user=user_id)
        writer = yield from held(session_id, now)
        if status == "cancelling":
            yield from ending.finish(writer, task_id, "cancelled", now=now)
        else:
            yield from _give_back(writer, task_id, epoch, "lease_expired", now, 0)
        swept.append((session_id, (yield from writer.flush())))
    return swept


def _give_back(
    writer: Writer, task_id: str, epoch: int, reason: str, now: int, worked_ms: int
) -> Unit[None]:
    """Queue it again, its half-made step charged and closed; the end of one that kills its workers."""
    lost = int(reason == "lease_expired")
    queued = yield _REQUEUE(task=task_id, epoch=epoch, lost=lost, more_ms=worked_ms)
    if not queued:
        yield from ending.finish(writer, task_id, "cancelled", now=now)
        return
    if lost and queued[0][0] >= POISON_ATTEMPTS:
        message = f"It ended {POISON_ATTEMPTS} workers in a row without completing a step."
        error = ErrorBody(code="poison", message=message)
        yield from ending.finish(writer, task_id, "failed", error, now=now)
        return
    yield from spending.charge(writer, task_id, now)
    yield from ending.close_items(writer, task_id, calls=False)
    writer.add(Draft(body=TaskResumed(reason=reason), task_id=task_id))

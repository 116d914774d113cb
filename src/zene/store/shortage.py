"""Tasks that wait for tokens: queued again as soon as they fit, ended as soon as they cannot fit any more.

A task waits only while model calls of the same user are open that may need less than they reserved. What is
settled looks for them in a unit of its own, since each of them has a session of its own, whose row comes
after the user's; the sweep looks, too, for whoever did not live to do so.
"""

from sqlalchemy import BigInteger, bindparam, cast, func, or_, select, update

from zene.domain.events import Draft, Event, TaskResumed
from zene.domain.quotas import EXHAUSTED
from zene.store import ending, quotas
from zene.store.base import Statement, Unit
from zene.store.log import held
from zene.store.schema import tasks, users

_NO_LIMIT = 1 << 62

_waits = (tasks.c.status == "waiting", tasks.c.waiting_on == "quota")
_wanted = func.coalesce(tasks.c.wanted_tokens, 0)
_WAITING = Statement(
    select(tasks.c.id, tasks.c.session_id, _wanted)
    .where(
        tasks.c.user_id == bindparam("user"),
        *_waits,
        or_(_wanted <= bindparam("free"), _wanted > bindparam("most")),
    )
    .order_by(tasks.c.id)
    .limit(bindparam("limit"))
)
_sum = cast(func.coalesce(func.sum(tasks.c.wanted_tokens), 0), BigInteger)
_PROMISED = Statement(
    select(
        select(_sum)
        .where(
            tasks.c.user_id == bindparam("user"),
            tasks.c.status == "queued",
            tasks.c.is_head == 1,  # as all are that have waited
        )
        .scalar_subquery()
        + select(_sum)
        .where(tasks.c.user_id == bindparam("user"), tasks.c.lease_epoch.is_not(None))
        .scalar_subquery()
    )
)
_RESUME = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"), *_waits)
    .values(status="queued", waiting_on=None)
    .returning(tasks.c.id)
)
_USERS = Statement(
    select(tasks.c.user_id)
    .join(users, users.c.id == tasks.c.user_id)
    .where(
        *_waits,
        or_(
            users.c.quota_tokens.is_(None),
            _wanted <= users.c.quota_tokens - quotas.USED - users.c.quota_reserved,
            _wanted > users.c.quota_tokens - quotas.USED,
        ),
    )
    .distinct()
    .limit(bindparam("limit"))
)


def resume(user_id: str, *, now: int, limit: int) -> Unit[list[tuple[str, list[Event]]]]:
    """Queue again what fits now, the oldest first, and end what cannot fit even when all that is reserved
    comes back. What was queued so and has not asked again yet keeps its tokens. Raises NotFound.
    """
    account = yield from quotas.hold(user_id, now)
    if account.limit is None:
        most = free = _NO_LIMIT
    else:
        most = account.limit - account.used
        free = most - account.reserved - (yield _PROMISED(user=user_id))[0][0]
    swept: list[tuple[str, list[Event]]] = []
    found = yield _WAITING(user=user_id, free=free, most=most, limit=limit)
    for task_id, session_id, wanted in found:
        if wanted > most:
            events = yield from _end(session_id, task_id, now)
        elif wanted <= free:
            free -= wanted
            events = yield from _queue(session_id, task_id, now)
        else:
            continue
        swept.append((session_id, events))
    return swept


def short_users(*, now: int, limit: int) -> Unit[list[str]]:
    """Users of whose waiting tasks one may fit now, or cannot fit any more."""
    return [row[0] for row in (yield _USERS(limit=limit, **quotas.at(now)))]


def _queue(session_id: str, task_id: str, now: int) -> Unit[list[Event]]:
    writer = yield from held(session_id, now)
    if (yield _RESUME(task=task_id)):
        writer.add(Draft(body=TaskResumed(reason="quota"), task_id=task_id))
    return (yield from writer.flush())


def _end(session_id: str, task_id: str, now: int) -> Unit[list[Event]]:
    writer = yield from held(session_id, now)
    yield from ending.finish(writer, task_id, "budget_exhausted", EXHAUSTED, now=now)
    return (yield from writer.flush())

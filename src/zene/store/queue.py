"""The queue: whose turn it is, and which of their tasks comes first.

Only the heads count, the oldest unfinished task of each session: each carries a mark, so that finding
them costs nothing for what is queued behind. Whoever ends a session's head marks the next in the same unit.
"""

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, exists, func, or_, select, update

from zene.domain.errors import Conflict
from zene.store.base import Row, Statement, Unit
from zene.store.columns import ANY_OF_THEM
from zene.store.log import held
from zene.store.schema import sessions, tasks, users

_before = tasks.alias("before")
IS_FIRST = ~exists().where(
    _before.c.session_id == tasks.c.session_id,
    _before.c.status != "finished",
    _before.c.place < tasks.c.place,
)
NEVER_STARTED = and_(tasks.c.status == "queued", tasks.c.started_at.is_(None))
MOST_PASSED = 200  # tasks that one can be moved past at once
_CAP = func.coalesce(users.c.max_active_tasks, bindparam("cap"))

# A session that was never claimed is at home anywhere.
IS_AT_HOME = or_(sessions.c.home.is_(None), sessions.c.home == bindparam("at_home"))

# From one user to the next in the index of what is ready, however much each has queued.
_some = tasks.alias("some")
_first = (
    select(func.min(_some.c.user_id).label("user_id"))
    .where(_some.c.status == "queued", _some.c.is_head == 1)
    .cte("ready", recursive=True)
)
_ready = _first.union_all(
    select(
        select(func.min(_some.c.user_id))
        .where(_some.c.status == "queued", _some.c.is_head == 1, _some.c.user_id > _first.c.user_id)
        .scalar_subquery()
    ).where(_first.c.user_id.is_not(None))
)
_head = tasks.alias("head")
_heads_here = (
    select(_head.c.id, _head.c.session_id)
    .join(sessions, sessions.c.id == _head.c.session_id)
    .where(
        _head.c.user_id == users.c.id,
        _head.c.status == "queued",
        _head.c.is_head == 1,
        IS_AT_HOME,
    )
    .order_by(_head.c.priority.desc(), _head.c.id)
    .correlate(users)
)
_in_turn = (
    select(users.c.id, _CAP - users.c.active)
    .join(_ready, _ready.c.user_id == users.c.id)
    .where(
        users.c.disabled_at.is_(None),
        users.c.active < _CAP,
        # No EXISTS: PostgreSQL would join that to everything that is ready.
        _heads_here.with_only_columns(_head.c.id).limit(1).scalar_subquery().is_not(None),
    )
    .order_by(users.c.turn, users.c.id)
    .limit(bindparam("limit"))
)
USERS_IN_TURN = Statement(_in_turn)
# Held at once, without those that somebody else holds: workers that claim at once get different users, and
# nobody waits for a user while holding another.
FREE_USERS_IN_TURN = Statement(_in_turn.with_for_update(of=users, skip_locked=True, key_share=True))
_first_heads = _heads_here.limit(bindparam("limit")).subquery("heads")
# Of each user the first tasks with their sessions, "task session,task session".
HEADS = Statement(
    select(
        users.c.id,
        select(func.aggregate_strings(_first_heads.c.id + " " + _first_heads.c.session_id, ","))
        .correlate(users)
        .scalar_subquery(),
    ).where(users.c.id.in_(ANY_OF_THEM))
)
PROMOTE = Statement(
    update(tasks)
    .where(
        tasks.c.id
        == select(_before.c.id)
        .where(_before.c.session_id == bindparam("session"), _before.c.status != "finished")
        .order_by(_before.c.place)
        .limit(1)
        .scalar_subquery(),
        tasks.c.is_head == 0,
    )
    .values(is_head=1)
)
_UNMARKED = Statement(
    select(tasks.c.session_id)
    .where(tasks.c.status != "finished", tasks.c.is_head == 0, IS_FIRST)
    .order_by(tasks.c.session_id)
    .limit(bindparam("limit"))
)


_PLACE = Statement(
    select(tasks.c.place).where(
        tasks.c.id == bindparam("task"), tasks.c.session_id == bindparam("session"), NEVER_STARTED
    )
)
_NEXT = Statement(
    select(tasks.c.id)
    .where(tasks.c.session_id == bindparam("session"), NEVER_STARTED)
    .order_by(tasks.c.place)
    .limit(1)
)
_LINE = Statement(
    select(tasks.c.id, tasks.c.place)
    .where(
        tasks.c.session_id == bindparam("session"),
        NEVER_STARTED,
        tasks.c.place >= bindparam("first"),
        tasks.c.place <= bindparam("last"),
    )
    .order_by(tasks.c.place)
    .limit(MOST_PASSED + 1)
)
_PUT = Statement(
    update(tasks).where(tasks.c.id == bindparam("task")).values(place=bindparam("where"))
)
_UNMARK = Statement(
    update(tasks)
    .where(
        tasks.c.session_id == bindparam("session"),
        tasks.c.status != "finished",
        tasks.c.is_head == 1,
    )
    .values(is_head=0)
)


def move(session_id: str, task_id: str, before_id: str) -> Unit[None]:
    """Put a task that was never started right before another such one of its session, whose row is held.
    Raises Conflict where either was started or ended, or too many tasks lie between them.
    """
    here = yield _PLACE(session=session_id, task=task_id)
    there = yield _PLACE(session=session_id, task=before_id)
    if not here or not there:
        raise Conflict(
            "Only a task that was never started can change its place, with another such one of its"
            " session.",
            code="already_started",
        )
    first, last = sorted((here[0][0], there[0][0]))
    line = yield _LINE(session=session_id, first=first, last=last)
    if len(line) > MOST_PASSED:
        raise Conflict(f"More than {MOST_PASSED} tasks would be passed.", code="queue_too_long")
    order = [each for each, _ in line if each != task_id]
    order.insert(0 if before_id == task_id else order.index(before_id), task_id)
    yield from _put(task_id, order, line)
    yield _UNMARK(session=session_id)
    yield PROMOTE(session=session_id)


def go_first(session_id: str, task_id: str) -> Unit[None]:
    """Put a task before every other of its session, whose row is held, that was never started."""
    before_id: str = (yield _NEXT(session=session_id))[0][0]
    yield from move(session_id, task_id, before_id)


def _put(moved: str, order: Sequence[str], line: Sequence[Row]) -> Unit[None]:
    """Give out the line's places anew. No two tasks ever have the same: the one that moves steps aside, to
    below all places, and each of the others goes where the one before it has left.
    """
    places = {task_id: place for task_id, (_, place) in zip(order, line, strict=True)}
    others = [
        {"task": each, "where": places[each]} for each, place in line if places[each] != place
    ]
    others = [each for each in others if each["task"] != moved]
    if not others:
        return
    yield _PUT(task=moved, where=-line[-1][1])
    for each in others if line[0][0] == moved else reversed(others):
        yield _PUT(**each)
    yield _PUT(task=moved, where=places[moved])


def unmarked(limit: int) -> Unit[list[str]]:
    """Sessions whose head has no mark: what the release before leaves, which knows of none."""
    return [row[0] for row in (yield _UNMARKED(limit=limit))]


def mark(session_id: str, now: int) -> Unit[None]:
    """Mark the session's head."""
    yield from held(session_id, now)
    yield PROMOTE(session=session_id)

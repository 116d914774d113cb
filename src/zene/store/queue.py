"""The queue: whose turn it is, and which of their tasks comes first.

Only the heads count, the oldest unfinished task of each session: each carries a mark, so that finding
them costs nothing for what is queued behind. Whoever ends a session's head marks the next in the same unit.
"""

from sqlalchemy import bindparam, exists, func, select, update

from zene.store.base import Statement, Unit
from zene.store.log import held
from zene.store.schema import tasks, users

_before = tasks.alias("before")
IS_FIRST = ~exists().where(
    _before.c.session_id == tasks.c.session_id,
    _before.c.status != "finished",
    _before.c.place < tasks.c.place,
)
CAP = func.coalesce(users.c.max_active_tasks, bindparam("cap"))

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
USERS_IN_TURN = Statement(
    select(users.c.id)
    .join(_ready, _ready.c.user_id == users.c.id)
    .where(users.c.disabled_at.is_(None), users.c.active < CAP)
    .order_by(users.c.turn, users.c.id)
    .limit(bindparam("limit"))
)
HEADS = Statement(
    select(tasks.c.id, tasks.c.session_id)
    .where(tasks.c.user_id == bindparam("user"), tasks.c.status == "queued", tasks.c.is_head == 1)
    .order_by(tasks.c.priority.desc(), tasks.c.id)
    .limit(bindparam("limit"))
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


def unmarked(limit: int) -> Unit[list[str]]:
    """Sessions whose head has no mark: what the release before leaves, which knows of none."""
    return [row[0] for row in (yield _UNMARKED(limit=limit))]


def mark(session_id: str, now: int) -> Unit[None]:
    """Mark the session's head."""
    yield from held(session_id, now)
    yield PROMOTE(session=session_id)

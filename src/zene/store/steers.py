"""Steers: what a user says to a task that is worked on. Accepted here, heard by the agent before its next step.

A steer's id is that of the message that it becomes, so that whoever stores the message takes the steer in
the same unit: it is never lost and never said twice. What a task no longer heard stands at its end.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from sqlalchemy import bindparam, func, insert, select, update

from zene.domain.errors import Conflict, NotFound, TooMany
from zene.domain.events import Draft, ItemCompleted, ItemStarted
from zene.domain.messages import UserMessage
from zene.domain.situation import Steer
from zene.store.base import Statement, Unit
from zene.store.columns import one_of
from zene.store.log import Writer, held
from zene.store.schema import items, steers, tasks

MOST_UNHEARD = 100  # of one task

_OWN = Statement(
    select(tasks.c.session_id).where(
        tasks.c.id == bindparam("task"), tasks.c.user_id == bindparam("user")
    )
)
_IS_WORKED_ON = Statement(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"),
        tasks.c.started_at.is_not(None),
        one_of(tasks.c.status, "queued", "preparing", "running", "waiting"),
    )
    .values(status=tasks.c.status)
    .returning(tasks.c.id)
)
_ADD = Statement(
    insert(steers).values(
        id=bindparam("steer"),
        session_id=bindparam("session"),
        task_id=bindparam("task"),
        text=bindparam("said"),
        created_at=bindparam("now"),
    )
)
UNHEARD = (steers.c.task_id == bindparam("task"), steers.c.taken_seq.is_(None))
_COUNT = Statement(select(func.count()).select_from(steers).where(*UNHEARD))
_LIST = Statement(
    select(steers.c.id, steers.c.text, tasks.c.steps)
    .join(tasks, tasks.c.id == steers.c.task_id)
    .where(*UNHEARD)
    .order_by(steers.c.id)
)
TAKE = Statement(
    update(steers)
    .where(steers.c.id == bindparam("item"), steers.c.taken_seq.is_(None))
    .values(taken_seq=bindparam("seq"))
)
GOES_ON = Statement(
    select(tasks.c.id).where(
        tasks.c.id == bindparam("task"),
        tasks.c.status == "running",
        select(steers.c.id).where(*UNHEARD).exists(),
    )
)
_INSERT_ITEM = Statement(
    insert(items).values(
        id=bindparam("item"),
        session_id=bindparam("session"),
        task_id=bindparam("task"),
        step=bindparam("at_step"),
        place=bindparam("seq"),
        kind="user_message",
        status="completed",
        content=bindparam("text"),
    )
)


class Accepted(Struct, frozen=True, kw_only=True):
    """A steer that will be heard."""

    id: str
    session_id: str
    task_id: str
    text: str
    created_at: int


def steer(user_id: str, task_id: str, steer_id: str, text: str, now: int) -> Unit[Accepted]:
    """Say something to the user's task. Raises NotFound, Conflict where it was never started or is ending,
    TooMany while it has not heard very many.
    """
    own = yield _OWN(task=task_id, user=user_id)
    if not own:
        raise NotFound("There is no such task.")
    session_id: str = own[0][0]
    yield from held(session_id, now)
    if not (yield _IS_WORKED_ON(task=task_id)):
        raise Conflict("The task is not being worked on.", code="not_running")
    if (yield _COUNT(task=task_id))[0][0] >= MOST_UNHEARD:
        raise TooMany(
            f"The task has not heard {MOST_UNHEARD} things yet.",
            code="too_many_steers",
            retry_after=5,
        )
    yield _ADD(steer=steer_id, session=session_id, task=task_id, said=text, now=now)
    return Accepted(id=steer_id, session_id=session_id, task_id=task_id, text=text, created_at=now)


def unheard(task_id: str) -> Unit[Sequence[Steer]]:
    """What the task has not heard yet, in the order in which it was said."""
    return [Steer(id=row[0], text=row[1]) for row in (yield _LIST(task=task_id))]


def keep(writer: Writer, task_id: str) -> Unit[None]:
    """Say in the log and the history what a task that ends has not heard: the session's next one will."""
    for steer_id, text, step in (yield _LIST(task=task_id)):
        start = ItemStarted(item_id=steer_id, kind="user_message")
        end = ItemCompleted(item_id=steer_id, kind="user_message", status="completed", text=text)
        for body in (start, end):
            writer.add(Draft(body=body, task_id=task_id, step=step, item_id=steer_id))
        seq = writer.next_seq - 1
        yield _INSERT_ITEM(
            item=steer_id,
            session=writer.session_id,
            task=task_id,
            at_step=step,
            seq=seq,
            text=msgspec.json.encode(UserMessage(text)).decode(),
        )
        yield TAKE(item=steer_id, seq=seq)

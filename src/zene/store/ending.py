"""How tasks end, and what becomes of a step that nobody ends any more.

These are parts of units: whoever calls them holds the session's row through its log's `Writer`, and the
user's row before it where the task was leased.
"""

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import bindparam, case, exists, func, or_, select, update

from zene.domain.closing import OpenItem, close_open
from zene.domain.events import (
    ApprovalExpired,
    Draft,
    ErrorBody,
    ItemCompleted,
    TaskFinished,
)
from zene.domain.messages import Content, ToolCall
from zene.domain.tasks import FROM, Outcome, TaskError
from zene.store import rows, steers
from zene.store.base import Row, Statement, Unit
from zene.store.columns import one_of
from zene.store.log import Writer
from zene.store.queue import PROMOTE
from zene.store.schema import approvals, items, model_calls, sessions, tasks, users
from zene.store.spending import charge

if TYPE_CHECKING:
    from collections.abc import Sequence

_decoder: msgspec.json.Decoder[Content] = msgspec.json.Decoder(Content)

LOCK_USER = Statement(
    update(users).where(users.c.id == bindparam("user")).values(active=users.c.active)
)
RELEASE_USER = Statement(
    update(users)
    .where(users.c.id == bindparam("user"), users.c.active > 0)
    .values(active=users.c.active - 1)
)
END_EPOCH = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(lease_epoch=sessions.c.lease_epoch + 1)
)
COMPLETE_ITEM = Statement(
    update(items)
    .where(items.c.id == bindparam("item"), items.c.status == "open")
    .values(
        status=bindparam("new_status"),
        place=case((items.c.content.is_(None), bindparam("seq")), else_=items.c.place),
        content=func.coalesce(bindparam("new_content"), items.c.content),
    )
    .returning(items.c.id)
)
_OPEN_ITEMS = Statement(
    select(
        items.c.id,
        items.c.step,
        items.c.kind,
        items.c.content,
        items.c.intent_epoch,
        items.c.asked,
    )
    .where(items.c.task_id == bindparam("task"), items.c.status == "open")
    .order_by(items.c.place)
)
_other = tasks.alias("other")
_has_next = exists().where(
    _other.c.session_id == bindparam("session"),
    _other.c.status != "finished",
    _other.c.id != bindparam("task"),
)
_is_left = or_(
    exists().where(model_calls.c.task_id == bindparam("task"), model_calls.c.status == "open"),
    exists().where(items.c.task_id == bindparam("task"), items.c.status == "open"),
    exists().where(approvals.c.task_id == bindparam("task"), approvals.c.status == "pending"),
    exists().where(*steers.UNHEARD),
)
_WITHDRAW = Statement(
    update(approvals)
    .where(approvals.c.task_id == bindparam("task"), approvals.c.status == "pending")
    .values(status="withdrawn", decided_at=bindparam("now"))
    .returning(approvals.c.id, approvals.c.item_id)
)
_finish = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"), one_of(tasks.c.status, *FROM["finished"]))
    .values(
        outcome=case((tasks.c.status == "cancelling", "cancelled"), else_=bindparam("how")),
        error=case((tasks.c.status == "cancelling", None), else_=bindparam("why")),
        status="finished",
        waiting_on=None,
        is_head=0,
        reserved=0,
        worked_ms=tasks.c.worked_ms + bindparam("more_ms"),
        lease_worker=None,
        lease_epoch=None,
        lease_expires_at=None,
        finished_at=bindparam("now"),
    )
    .returning(*rows.TASK_USAGE, tasks.c.cost, tasks.c.outcome, _has_next)
)
_FINISH = Statement(_finish)
_FINISH_AS_IT_IS = Statement(_finish.where(~_is_left))


def finish(
    writer: Writer,
    task_id: str,
    outcome: Outcome,
    error: ErrorBody | None = None,
    *,
    now: int,
    worked_ms: int = 0,
) -> Unit[bool]:
    """End a task: close what is open, charge what is unknown, withdraw what was asked; False when it had
    ended. A task that was being cancelled ends as cancelled, whatever was to be said.
    """
    why = None if error is None else msgspec.json.encode(_kept(error)).decode()
    end = {
        "task": task_id,
        "session": writer.session_id,
        "how": outcome,
        "why": why,
        "more_ms": worked_ms,
        "now": now,
    }
    withdrawn: Sequence[Row] = ()
    ended = yield _FINISH_AS_IT_IS(**end)  # as most do
    if not ended:
        yield from charge(writer, task_id, now)
        yield from close_items(writer, task_id)
        withdrawn = yield _WITHDRAW(task=task_id, now=now)
        yield from steers.keep(writer, task_id)
        ended = yield _FINISH(**end)
        if not ended:
            return False
    for approval_id, item_id in withdrawn:
        body = ApprovalExpired(approval_id=approval_id)
        writer.add(Draft(body=body, task_id=task_id, item_id=item_id))
    *used, cost, actual, has_next = ended[0]
    said = TaskFinished(
        outcome=actual,
        error=error if actual == outcome else None,
        usage=rows.usage(used),
        cost=cost,
    )
    writer.add(Draft(body=said, task_id=task_id))
    if has_next:
        yield PROMOTE(session=writer.session_id)
    return True


def close_items(writer: Writer, task_id: str, *, calls: bool = True) -> Unit[None]:
    """Complete the task's open items, or with `calls` False only those that are no calls."""
    found = [_open_item(task_id, row) for row in (yield _OPEN_ITEMS(task=task_id))]
    for draft in close_open(item for item in found if calls or item.call is None):
        yield from complete_item(writer, draft)


def complete_item(writer: Writer, draft: Draft) -> Unit[bool]:
    """An item.completed with its row; False, and no event, where the item is not open."""
    body = draft.body
    if not isinstance(body, ItemCompleted):
        raise TypeError(body.type)
    content = None if draft.content is None else encoded(draft.content)
    done = yield COMPLETE_ITEM(
        item=body.item_id, new_status=body.status, seq=writer.next_seq, new_content=content
    )
    if done:
        writer.add(draft)
    return bool(done)


def encoded(content: Content) -> str:
    """An item's content as its row keeps it."""
    return msgspec.json.encode(content).decode()


def decoded(text_: str) -> Content:
    """What `encoded` made."""
    return _decoder.decode(text_)


def _open_item(task_id: str, row: Row) -> OpenItem:
    item_id, step, kind, content, intent_epoch, asked = row
    call = decoded(content) if content else None
    return OpenItem(
        id=item_id,
        task_id=task_id,
        step=step,
        kind=kind,
        call=call if isinstance(call, ToolCall) else None,
        begun=intent_epoch is not None,
        asked=bool(asked),
    )


def _kept(error: ErrorBody) -> TaskError:
    return TaskError(code=error.code, message=error.message, retryable=error.retryable)

"""How tasks end, and what becomes of a step that nobody ends any more.

These are parts of units: whoever calls them holds the session's row through its log's `Writer`, and the
user's row before it where the task was leased.
"""

import msgspec
from sqlalchemy import bindparam, case, func, select, text, update

from zene.domain.closing import OpenItem, close_open
from zene.domain.events import (
    ApprovalExpired,
    Draft,
    ErrorBody,
    ItemCompleted,
    StepFinished,
    TaskFinished,
)
from zene.domain.messages import Content, ToolCall, Usage
from zene.domain.tasks import FROM, Outcome, TaskError
from zene.domain.times import rfc3339
from zene.store import rows
from zene.store.base import Row, Statement, Unit
from zene.store.columns import one_of
from zene.store.log import Writer
from zene.store.schema import approvals, items, model_calls, sessions, tasks, users

_decoder: msgspec.json.Decoder[Content] = msgspec.json.Decoder(Content)

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
_WITHDRAW = Statement(
    update(approvals)
    .where(approvals.c.task_id == bindparam("task"), approvals.c.status == "pending")
    .values(status="withdrawn", decided_at=bindparam("now"))
    .returning(approvals.c.id, approvals.c.item_id)
)
_CHARGE = Statement(
    update(model_calls)
    .where(model_calls.c.task_id == bindparam("task"), model_calls.c.status == "open")
    .values(
        status="charged",
        input_tokens=model_calls.c.input_bound,
        output_tokens=model_calls.c.output_cap,
        estimated=1,
        ended_at=bindparam("now"),
    )
    .returning(
        model_calls.c.step,
        model_calls.c.input_bound,
        model_calls.c.output_cap,
        model_calls.c.user_id,
        model_calls.c.model,
    )
)
_ADD_USAGE = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        {
            "reserved": tasks.c.reserved - bindparam("freed"),
            "losses": tasks.c.losses * bindparam("keep_losses"),
            "cost": case(
                (bindparam("is_priced") == 1, func.coalesce(tasks.c.cost, 0) + bindparam("price")),
                else_=tasks.c.cost,
            ),
            "estimated": case((bindparam("is_estimated") == 1, 1), else_=tasks.c.estimated),
        }
        | {name: tasks.c[name] + bindparam(f"more_{name}") for name in rows.USAGE_NAMES[:-1]}
    )
)
_ADD_DAY = Statement(
    text(
        "INSERT INTO usage_days (user_id, day, model, input_tokens, output_tokens, cached_tokens,"
        " cache_write_tokens, reasoning_tokens, estimated, cost)"
        " VALUES (:user, :day, :model, :input, :output, :cached, :written, :reasoning, :estimated,"
        " :cost) ON CONFLICT (user_id, day, model) DO UPDATE SET"
        " input_tokens = usage_days.input_tokens + excluded.input_tokens,"
        " output_tokens = usage_days.output_tokens + excluded.output_tokens,"
        " cached_tokens = usage_days.cached_tokens + excluded.cached_tokens,"
        " cache_write_tokens = usage_days.cache_write_tokens + excluded.cache_write_tokens,"
        " reasoning_tokens = usage_days.reasoning_tokens + excluded.reasoning_tokens,"
        " estimated = CASE WHEN excluded.estimated = 1 THEN 1 ELSE usage_days.estimated END,"
        " cost = COALESCE(usage_days.cost + excluded.cost, usage_days.cost, excluded.cost)"
    )
)
_FINISH = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"), one_of(tasks.c.status, *FROM["finished"]))
    .values(
        outcome=case((tasks.c.status == "cancelling", "cancelled"), else_=bindparam("how")),
        error=case((tasks.c.status == "cancelling", None), else_=bindparam("why")),
        status="finished",
        waiting_on=None,
        reserved=0,
        worked_ms=tasks.c.worked_ms + bindparam("more_ms"),
        lease_worker=None,
        lease_epoch=None,
        lease_expires_at=None,
        finished_at=bindparam("now"),
    )
    .returning(*rows.TASK_USAGE, tasks.c.cost, tasks.c.outcome)
)


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
    yield from settle_step(writer, task_id, now)
    yield from close_items(writer, task_id)
    withdrawn = yield _WITHDRAW(task=task_id, now=now)
    why = None if error is None else msgspec.json.encode(_kept(error)).decode()
    ended = yield _FINISH(task=task_id, how=outcome, why=why, more_ms=worked_ms, now=now)
    if not ended:
        return False
    for approval_id, item_id in withdrawn:
        body = ApprovalExpired(approval_id=approval_id)
        writer.add(Draft(body=body, task_id=task_id, item_id=item_id))
    cost, actual = ended[0][-2:]
    end = TaskFinished(
        outcome=actual,
        error=error if actual == outcome else None,
        usage=rows.usage(ended[0]),
        cost=cost,
    )
    writer.add(Draft(body=end, task_id=task_id))
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


def settle_step(writer: Writer, task_id: str, now: int) -> Unit[None]:
    """Charge a model call whose end nobody knows at what was reserved for it, and say so."""
    for step, bound, cap, user_id, model in (yield _CHARGE(task=task_id, now=now)):
        usage = Usage(input_tokens=bound, output_tokens=cap, estimated=True)
        yield from add_usage(task_id, user_id, model, usage, None, freed=bound + cap, now=now)
        body = StepFinished(stop_reason="interrupted", usage=usage)
        writer.add(Draft(body=body, task_id=task_id, step=step))


def add_usage(  # noqa: PLR0913 - a row of a ledger
    task_id: str,
    user_id: str,
    model: str,
    usage: Usage,
    cost: float | None,
    *,
    freed: int,
    now: int,
    is_whole: bool = False,
) -> Unit[None]:
    """Add a call's usage to its task and its user's day, and free what was reserved for it. A step that
    `is_whole` shows that the task is not what kills its workers.
    """
    counts = {f"more_{name}": getattr(usage, name) for name in rows.USAGE_NAMES[:-1]}
    yield _ADD_USAGE(
        task=task_id,
        freed=freed,
        keep_losses=int(not is_whole),
        is_priced=int(cost is not None),
        price=cost or 0.0,
        is_estimated=int(usage.estimated),
        **counts,
    )
    yield _ADD_DAY(
        user=user_id,
        day=_day(now),
        model=model,
        input=usage.input_tokens,
        output=usage.output_tokens,
        cached=usage.cached_tokens,
        written=usage.cache_write_tokens,
        reasoning=usage.reasoning_tokens,
        estimated=int(usage.estimated),
        cost=cost,
    )


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


def _day(now: int) -> str:
    return rfc3339(now)[:10]

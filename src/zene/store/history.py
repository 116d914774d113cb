"""The history of a session: what a run of the agent starts from, and what can be looked up in it."""

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import bindparam, func, or_, select, true

from zene.domain.approvals import Approval
from zene.domain.errors import NotFound
from zene.domain.events import CALL_KINDS
from zene.domain.messages import Item, ToolCall
from zene.domain.sessions import ApprovalPolicy
from zene.domain.situation import Situation
from zene.domain.tasks import Task
from zene.store import rows
from zene.store.base import Row, Statement, Unit
from zene.store.ending import decoded
from zene.store.schema import approvals, items, model_calls, rules, sessions

_ITEM = (
    items.c.id,
    items.c.task_id,
    items.c.step,
    items.c.content,
    items.c.place,
    items.c.status,
    items.c.intent_epoch,
)
_items = (
    select(*_ITEM)
    .where(
        items.c.session_id == bindparam("session"),
        items.c.place >= bindparam("first"),
        items.c.content.is_not(None),
    )
    .order_by(items.c.place)
)
_ITEMS = Statement(_items)
_last = (
    select(model_calls.c.place, model_calls.c.input_tokens, model_calls.c.model)
    .where(
        model_calls.c.session_id == bindparam("session"),
        model_calls.c.status == "settled",
        model_calls.c.estimated == 0,
        model_calls.c.input_tokens > 0,
    )
    .order_by(model_calls.c.place.desc())
    .limit(1)
    .subquery("last")
)
# With each item, the session's last model call that the provider counted, and the tools that are allowed in it.
_SITUATION = Statement(
    _items.add_columns(
        *_last.c,
        select(func.aggregate_strings(rules.c.tool, " "))
        .where(rules.c.session_id == bindparam("session"))
        .scalar_subquery(),
    )
    .select_from(items)
    .outerjoin(_last, true())
)
_APPROVALS = Statement(select(*rows.APPROVAL).where(approvals.c.task_id == bindparam("task")))
_FOUND = (items.c.id, items.c.task_id, items.c.call_id, items.c.kind, items.c.content)
_FIND = Statement(
    select(*_FOUND)
    .where(
        items.c.session_id == bindparam("session"),
        or_(items.c.id == bindparam("called"), items.c.call_id == bindparam("called")),
    )
    .order_by(items.c.place.desc())
    .limit(1)
)
_FIND_OWNED = Statement(
    select(*_FOUND)
    .join(sessions, sessions.c.id == items.c.session_id)
    .where(
        items.c.id == bindparam("called"),
        items.c.session_id == bindparam("session"),
        sessions.c.user_id == bindparam("user"),
        sessions.c.deleted_at.is_(None),
    )
)


class Found(Struct, frozen=True, kw_only=True):
    """An item that was looked up; `output` is a call's result as the model was told it, "" while open."""

    item_id: str
    task_id: str
    call_id: str | None
    kind: str
    output: str


def situation(task: Task, policy: ApprovalPolicy, history_from: int) -> Unit[Situation]:
    """What the task, as it was claimed, starts from, but for its approvals: nobody but its owner changes that
    until it lets go.
    """
    kept = yield _SITUATION(session=task.session_id, first=history_from)
    counted: tuple[int, int] | None = None
    allowed = ""
    if kept:
        *_, place, tokens, model, allowed = kept[0]
        if place is not None and place >= history_from and model == task.model:
            counted = tokens, sum(1 for row in kept if row[4] < place)
    return Situation(
        task=task,
        policy=policy,
        items=[_item(row) for row in kept],
        begun=frozenset(row[0] for row in kept if row[5] == "open" and row[6] is not None),
        rules=frozenset((allowed or "").split()),
        step=task.steps,
        usage=task.usage,
        counted=counted,
    )


def asked(task_id: str) -> Unit[dict[str, Approval]]:
    """The approvals that the task ever asked for, by item id."""
    found = [rows.approval(row) for row in (yield _APPROVALS(task=task_id))]
    return {approval.item_id: approval for approval in found}


def all_items(session_id: str) -> Unit[list[Item]]:
    """The session's whole history, what a compaction summarised included."""
    return [_item(row) for row in (yield _ITEMS(session=session_id, first=0))]


def find_call(session_id: str, called: str) -> Unit[Found]:
    """A call of the session by its item id or call id, the last one of that name. Raises NotFound."""
    return _found((yield _FIND(session=session_id, called=called)))


def find_item(user_id: str, session_id: str, item_id: str) -> Unit[Found]:
    """An item of the user's session. Raises NotFound."""
    return _found((yield _FIND_OWNED(user=user_id, session=session_id, called=item_id)))


def _item(row: Row) -> Item:
    return Item(id=row[0], task_id=row[1], step=row[2], content=decoded(row[3]))


def _found(found: Sequence[Row]) -> Found:
    if not found:
        raise NotFound("There is no such call in this session.")
    item_id, task_id, call_id, kind, content = found[0]
    call = decoded(content) if content and kind in CALL_KINDS else None
    result = call.result if isinstance(call, ToolCall) else None
    return Found(
        item_id=item_id,
        task_id=task_id,
        call_id=call_id,
        kind=kind,
        output="" if result is None else result.output,
    )

"""What becomes of the items that are still open when a task ends or its worker has died.

Whoever ends a task closes them with this one function, in the transaction that ends it, so that every
item that was started is completed, also after a crash.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from zene.domain.events import Draft, ItemCompleted, ItemKind, as_json
from zene.domain.messages import CallStatus, ToolCall, ToolResult

INTERRUPTED = (
    "Interrupted: it may have run, wholly, in part or not at all. Look before you repeat it."
)
NOT_RUN = "Not run: the task ended first."
NOT_ALLOWED = "Not run: the task ended before anybody allowed it."


class OpenItem(Struct, frozen=True, kw_only=True):
    """An item that was started and not completed. `call` is set for calls; one that is `begun` may have
    had its effect, one that is `asked` had to be allowed by a person.
    """

    id: str
    task_id: str
    step: int
    kind: ItemKind
    call: ToolCall | None = None
    begun: bool = False
    asked: bool = False


def close_open(items: Iterable[OpenItem]) -> list[Draft]:
    """Complete each item: text that nobody ends any more is discarded, a call gets a result that tells
    whether it may have run.
    """
    return [_discarded(item) if item.call is None else _ended(item, item.call) for item in items]


def _discarded(item: OpenItem) -> Draft:
    body = ItemCompleted(item_id=item.id, kind=item.kind, status="discarded")
    return Draft(body=body, task_id=item.task_id, step=item.step, item_id=item.id)


def _ended(item: OpenItem, call: ToolCall) -> Draft:
    result = _result(item)
    body = ItemCompleted(
        item_id=item.id,
        kind=item.kind,
        status=result.status,
        call_id=call.call_id,
        name=call.name,
        arguments=as_json(call.arguments),
        output=result.output,
    )
    return Draft(
        body=body,
        task_id=item.task_id,
        step=item.step,
        item_id=item.id,
        content=replace(call, result=result),
    )


def _result(item: OpenItem) -> ToolResult:
    status: CallStatus = "interrupted"
    if item.begun:
        return ToolResult(status=status, output=INTERRUPTED)
    if item.asked:
        return ToolResult(status="denied", output=NOT_ALLOWED)
    return ToolResult(status=status, output=NOT_RUN)

"""The history as lines of text, as `read_output` shows it to the model once a summary stands for it."""

from collections.abc import Iterable, Iterator

from zene.domain.messages import (
    Compaction,
    Item,
    Message,
    Reasoning,
    SystemText,
    ToolCall,
    UserMessage,
)
from zene.tools.text import shortened

ARGUMENTS_LIMIT = 2000  # characters of a call's arguments; its output stands whole


def lines(items: Iterable[Item]) -> list[str]:
    """Every item, oldest first, under a heading that names its kind and id. What repeats (system text) and
    what was not said to anyone (reasoning) is left out.
    """
    return [line for item in items for line in _lines(item)]


def _lines(item: Item) -> Iterator[str]:
    match item.content:
        case UserMessage(text=text):
            yield from (f"## user {item.id}", *text.splitlines(), "")
        case Message(text=text):
            yield from (f"## agent {item.id}", *text.splitlines(), "")
        case Compaction(summary=summary):
            yield from (f"## summary {item.id}", *summary.splitlines(), "")
        case ToolCall() as call:
            yield from _call(item.id, call)
        case SystemText() | Reasoning():
            pass


def _call(item_id: str, call: ToolCall) -> Iterator[str]:
    yield f"## call {item_id} {call.name} {shortened(call.arguments, ARGUMENTS_LIMIT)}"
    if call.result is not None:
        yield from (f"[{call.result.status}]", *call.result.output.splitlines())
    yield ""

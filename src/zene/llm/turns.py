"""The history as providers see it: what the model said in one answer stays together.

Items that share task and step came in one answer; the results of its calls follow it, whatever the wire
format calls them.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import groupby

from msgspec import Struct

from zene.domain.messages import (
    Compaction,
    Item,
    Message,
    Reasoning,
    SystemText,
    ToolCall,
    UserMessage,
)

Spoken = Message | Reasoning | ToolCall
_SPOKEN = (Message, Reasoning, ToolCall)  # several times faster to ask for than a union
_SENDABLE = re.compile(r"[a-zA-Z0-9_-]+")
_UNSENDABLE = re.compile(r"[^a-zA-Z0-9_-]")
_DIGEST = 16  # characters


class Answered(Struct, frozen=True):
    """One answer of the model, in its order, and its tool calls, whose results the model is told next."""

    parts: Sequence[Spoken]
    calls: Sequence[ToolCall]


class Said(Struct, frozen=True):
    """What the model is told by or for the user."""

    text: str


class Ruled(Struct, frozen=True):
    """System text."""

    text: str


Turn = Answered | Said | Ruled


def turns(items: Sequence[Item]) -> Iterator[Turn]:
    """The turns of a history."""
    for key, group in groupby(items, key=_answer):
        if key is not None:
            parts = [item.content for item in group if isinstance(item.content, _SPOKEN)]
            yield Answered(parts, [part for part in parts if isinstance(part, ToolCall)])
            continue
        for item in group:
            match item.content:
                case SystemText(text):
                    yield Ruled(text)
                case UserMessage(text):
                    yield Said(text)
                case Compaction() as compaction:
                    yield Said(compacted(compaction))
                case _:
                    pass


def compacted(compaction: Compaction) -> str:
    """How a model is shown the summary that stands for what came before."""
    told = f"What happened so far, summarised:\n\n{compaction.summary}"
    return f"{told}\n\n{compaction.restated}" if compaction.restated else told


def result_of(call: ToolCall) -> str:
    """What the model is told of a call; every call of a request has a result."""
    return call.result.output if call.result else ""


def sendable_id(call_id: str, *, longest: int) -> str:
    """The id of a call as a provider takes it that another one may have made: up to `longest` letters, digits,
    `_` and `-`. An id that fits stays as it is, one that does not becomes the same one each time, and no two the same.
    """
    if len(call_id) <= longest and _SENDABLE.fullmatch(call_id):
        return call_id
    kept = _UNSENDABLE.sub("_", call_id)[: longest - _DIGEST - 1]
    return f"{kept}_{sha256(call_id.encode(errors='surrogatepass')).hexdigest()[:_DIGEST]}"


def _answer(item: Item) -> tuple[str, int] | None:
    """What items of one answer share; None for what the model did not say."""
    return (item.task_id, item.step) if isinstance(item.content, _SPOKEN) else None

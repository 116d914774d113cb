"""What a model is shown: the history as one request whose beginning never changes while a task lasts.

The system text in force stands first, the tools never change, and everything else stands in the order in
which it happened: a provider's cache then finds the whole of the last request at the start of the next.
"""

from collections.abc import Sequence
from typing import cast

from msgspec.structs import replace

from zene.agent.conversation import Conversation
from zene.domain.messages import Block, Content, Item, Message, Reasoning, SystemText, ToolCall
from zene.llm.base import Effort, ModelInfo, Request, ToolSpec


def request(
    talk: Conversation, *, info: ModelInfo, wire: str, specs: Sequence[ToolSpec], cap: int
) -> Request:
    """The next call of the model. Every call in the history has a result by now."""
    return Request(
        model=info.name,
        items=visible(talk.items, wire),
        tools=specs,
        max_output_tokens=cap,
        effort=cast("Effort | None", talk.task.effort),
        cache_key=talk.task.session_id,
    )


def visible(items: Sequence[Item], wire: str) -> list[Item]:
    """The system text in force and everything else, without what belongs to another wire format: its
    blocks go, and reasoning that came with one goes whole.
    """
    system = [item for item in items if isinstance(item.content, SystemText)][-1:]
    rest = (item for item in items if not isinstance(item.content, SystemText))
    return system + [shown for item in rest if (shown := _own(item, wire)) is not None]


def _own(item: Item, wire: str) -> Item | None:
    content = item.content
    block: Block | None = getattr(content, "block", None)
    if block is None or block.wire == wire:
        return item
    plain = _plain(content)
    if plain is None:
        return None
    return replace(item, content=plain)


def _plain(content: Content) -> Content | None:
    match content:
        case Message():
            return Message(text=content.text) if content.text else None
        case ToolCall():
            return replace(content, block=None)
        case Reasoning():
            return None
        case _:
            return content

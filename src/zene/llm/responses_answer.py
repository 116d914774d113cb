"""Reads the answer of OpenAI's Responses: events in, parts out. Its output items are the parts.

An item's last form, as `response.output_item.done` has it, is kept as the part's block: only so can it go back
to a server that stores nothing. An item that never got there is told in our own words.
"""

from msgspec import Raw, Struct

from zene.domain.messages import Block, Content, Message, Reasoning, ToolCall
from zene.llm.base import CallStarted, Delta, Done, Output, PartDone, StopReason
from zene.llm.connection import bad_response, unreachable
from zene.llm.refusals import refused_in_stream
from zene.llm.responses_events import (
    Completed,
    Failed,
    Growth,
    Incomplete,
    ItemAdded,
    ItemDone,
    Kind,
    Known,
    OfResponse,
    OutputItem,
    RefusalDelta,
    StreamError,
    decode_event,
    decode_item,
    usage_of,
)
from zene.llm.wire import Bounds

NAME = "openai.responses"

_KINDS: dict[str, Kind] = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "arguments",
}


class _OpenItem(Struct):
    """An item that still grows; `index` is its part's, which no passed-over item uses up."""

    index: int
    kind: Kind
    head: OutputItem
    pieces: list[str] = []
    paragraph: int = 0


class ResponsesAnswer:
    """One answer; see `wire.Answer`."""

    def __init__(self, bounds: Bounds) -> None:
        self.is_complete = False
        self._bounds = bounds
        self._id = ""
        self._usage = Raw(b"null")
        self._is_cut = False
        self._next_index = 0
        self._items: dict[int, _OpenItem] = {}
        self._skipped: set[int] = set()
        self._ended: set[int] = set()
        self._has_called = False
        self._has_declined = False

    def read(self, event: bytes) -> list[Output]:
        """What one event adds. Whatever follows the answer's end is not read."""
        if self.is_complete or event == b"[DONE]":
            return []
        known = decode_event(event)
        if isinstance(known, Growth):
            outputs = self._grow(known)
            self.is_complete = self._bounds.is_over
            return outputs
        match known:
            case ItemAdded(index, raw):
                return self._begin(index, decode_item(raw))
            case ItemDone(index, raw):
                outputs = self._end(index, raw)
                self.is_complete = self._bounds.is_over
                return outputs
            case StreamError():
                raise refused_in_stream(known.reason)
            case _:
                self._note(known)
                return []

    def finish(self) -> list[Output]:
        """Close what is open. Without an event that ends it the answer was cut."""
        if not self.is_complete:
            raise unreachable("ended its answer in the middle")
        outputs: list[Output] = []
        self._is_cut |= self._bounds.is_over
        for _, item in sorted(self._items.items()):
            outputs += self._done(item, None)
        usage = self._bounds.checked(usage_of(self._usage))
        outputs.append(Done(stop_reason=self._stop_reason(), usage=usage, response_id=self._id))
        return outputs

    def _begin(self, index: int, head: OutputItem) -> list[Output]:
        if index in self._items or index in self._ended:
            raise bad_response("began an item twice")
        kind = _KINDS.get(head.type)
        if kind is None:
            self._skipped.add(index)
            return []
        item = self._items[index] = _OpenItem(self._next_index, kind, head)
        self._next_index += 1
        if kind != "arguments":
            return []
        self._bounds.count_call()
        self._has_called = True
        return [CallStarted(item.index, head.call_id, head.name)]

    def _grow(self, event: Growth) -> list[Output]:
        item = self._growing(event)
        if item is None or not event.delta:
            return []
        if isinstance(event, RefusalDelta):
            self._has_declined = True
        text = event.delta
        if event.paragraph != item.paragraph:
            item.paragraph = event.paragraph
            text = f"\n\n{text}" if item.pieces else text
        return [self._delta(item, event.kind, text)]

    def _growing(self, event: Growth) -> _OpenItem | None:
        """The item that the event belongs to; None for one that is passed over."""
        item = self._items.get(event.output_index)
        if item is None and event.output_index not in self._skipped:
            raise bad_response("went on with an item that it never began")
        if item and item.head.id and event.item_id not in ("", item.head.id):
            raise bad_response("mixed another answer into this one")
        return item

    def _delta(self, item: _OpenItem, kind: Kind, text: str) -> Output:
        if item.kind != kind:
            raise bad_response("went on with an item as if it were another")
        self._bounds.count(text)
        if kind == "arguments":
            self._bounds.count_arguments(text)
        item.pieces.append(text)
        return Delta(item.index, kind, text)

    def _end(self, index: int, raw: Raw) -> list[Output]:
        """The item in its last form; what was not streamed of it comes now."""
        if index in self._skipped:
            return []
        whole = decode_item(raw)
        outputs = [] if index in self._items else self._begin(index, whole)
        item = self._items.pop(index, None)
        if item is None:
            return outputs
        if not whole.continues(item.head):
            raise bad_response("ended an item as if it were another")
        self._ended.add(index)
        self._has_declined |= whole.declines
        item.head = whole
        outputs += self._rest(item)
        return [*outputs, *self._done(item, Block(wire=NAME, data=raw.copy()))]

    def _rest(self, item: _OpenItem) -> list[Output]:
        head = item.head
        last = {"message": head.said, "reasoning": head.thought, "arguments": head.arguments}
        whole, streamed = last[item.kind], "".join(item.pieces)
        if item.kind == "arguments" and not whole.startswith(streamed):
            raise bad_response("ended a call with other arguments than it had begun with")
        rest = whole.removeprefix(streamed) if whole.startswith(streamed) else ""
        return [self._delta(item, item.kind, rest)] if rest else []

    def _done(self, item: _OpenItem, block: Block | None) -> list[Output]:
        content = self._content(item, block)
        return [PartDone(item.index, content)] if content is not None else []

    def _content(self, item: _OpenItem, block: Block | None) -> Content | None:
        """A call without arguments means an empty object, unless it was cut before them."""
        text, head = "".join(item.pieces), item.head
        match item.kind:
            case "message":
                return Message(text, block) if text or block else None
            case "reasoning":
                return Reasoning(text, block if head.is_sealed else None)
            case "arguments":
                is_cut = self._is_cut or head.status == "incomplete"
                return ToolCall(
                    head.call_id, head.name, text or ("" if is_cut else "{}"), None, block
                )

    def _note(self, event: Known | None) -> None:
        if not isinstance(event, OfResponse):
            return
        response = event.response
        if self._id and response.id not in (None, self._id):
            raise bad_response("mixed another answer into this one")
        self._id = response.id or self._id
        if isinstance(event, Failed):
            raise refused_in_stream(response.error or {})
        if isinstance(event, Completed | Incomplete):
            self.is_complete = True
            self._usage = response.usage
        if isinstance(event, Incomplete):
            self._is_cut = True
            self._has_declined |= response.reason == "content_filter"

    def _stop_reason(self) -> StopReason:
        if self._has_declined:
            return "refusal"
        if self._is_cut:
            return "length"
        return "tool_calls" if self._has_called else "end"

"""Reads the answer of Anthropic's Messages: events in, parts out. Its content blocks are the parts."""

from typing import Literal

from msgspec import Raw, Struct
from msgspec.json import encode

from zene.domain.messages import Block, Content, Message, Reasoning, ToolCall
from zene.llm.anthropic_events import (
    KNOWN_BLOCKS,
    BlockDelta,
    BlockHead,
    BlockStart,
    BlockStop,
    InputDelta,
    Known,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StreamError,
    TextDelta,
    ThinkingDelta,
    decode_event,
    decode_head,
    usage_of,
)
from zene.llm.base import CallStarted, Delta, Done, Output, PartDone, StopReason
from zene.llm.connection import bad_response, unreachable
from zene.llm.refusals import refused_in_stream
from zene.llm.wire import Bounds

NAME = "anthropic"


Kind = Literal["message", "reasoning", "arguments"]


class _OpenBlock(Struct):
    """A block that still grows; `index` is its part's, which no passed-over block uses up."""

    index: int
    kind: Kind
    head: BlockHead
    raw: Raw
    pieces: list[str] = []
    signature: str = ""


_KINDS: dict[str, Kind] = {"text": "message", "tool_use": "arguments"}
_STOPS: dict[str, StopReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # paused by the server: there is more to say, as after a cut
    "refusal": "refusal",
}


class MessagesAnswer:
    """One answer; see `wire.Answer`."""

    def __init__(self, bounds: Bounds) -> None:
        self.is_complete = False
        self._bounds = bounds
        self._id = ""
        self._reported: list[Raw] = []
        self._stop: str | None = None
        self._next_index = 0
        self._blocks: dict[int, _OpenBlock] = {}
        self._skipped: set[int] = set()
        self._has_called = False

    def read(self, event: bytes) -> list[Output]:
        """What one event adds. Whatever follows the answer's end is not read."""
        if self.is_complete:
            return []
        known = decode_event(event)
        if isinstance(known, BlockDelta):
            outputs = self._grow(known)
            self.is_complete = self._bounds.is_over
            return outputs
        match known:
            case BlockStart():
                return self._begin(known)
            case BlockStop():
                return self._end(known.index)
            case StreamError():
                raise refused_in_stream(known.error)
            case _:
                self._note(known)
                return []

    def finish(self) -> list[Output]:
        """Close what is open. Without an end or a stop reason the answer was cut."""
        if self._stop is None and not self.is_complete:
            raise unreachable("ended its answer in the middle")
        outputs: list[Output] = []
        for index in sorted(self._blocks):
            outputs += self._end(index)
        usage = self._bounds.checked(usage_of(self._reported))
        outputs.append(Done(stop_reason=self._stop_reason(), usage=usage, response_id=self._id))
        return outputs

    def _begin(self, event: BlockStart) -> list[Output]:
        if event.index in self._blocks:
            raise bad_response("began a block twice")
        head = decode_head(event.content_block)
        if head.type not in KNOWN_BLOCKS:
            self._skipped.add(event.index)
            return []
        kind = _KINDS.get(head.type, "reasoning")
        raw = event.content_block
        block = _OpenBlock(self._next_index, kind, head, raw, signature=head.signature)
        self._next_index += 1
        self._blocks[event.index] = block
        if head.type == "tool_use":
            self._bounds.count_call()
            self._has_called = True
            return [CallStarted(block.index, head.id, head.name)]
        first = head.text or head.thinking
        return [self._delta(block, kind, first)] if first else []

    def _grow(self, event: BlockDelta) -> list[Output]:
        block = self._blocks.get(event.index)
        if block is None:
            if event.index in self._skipped:
                return []
            raise bad_response("went on with a block that it never began")
        match event.delta:
            case TextDelta(text):
                return [self._delta(block, "message", text)]
            case ThinkingDelta(text):
                return [self._delta(block, "reasoning", text)]
            case InputDelta(text):
                self._bounds.count_arguments(text)
                return [self._delta(block, "arguments", text)]
            case SignatureDelta(signature):
                block.signature = signature
                return []

    def _delta(self, block: _OpenBlock, kind: Kind, text: str) -> Output:
        if block.kind != kind:
            raise bad_response("went on with a block as if it were another")
        self._bounds.count(text)
        block.pieces.append(text)
        return Delta(block.index, kind, text)

    def _end(self, index: int) -> list[Output]:
        block = self._blocks.pop(index, None)
        if block is None:
            if index in self._skipped:
                return []
            raise bad_response("ended a block that it never began")
        content = self._whole(block)
        return [PartDone(block.index, content)] if content is not None else []

    def _whole(self, block: _OpenBlock) -> Content | None:
        text = "".join(block.pieces)
        head = block.head
        if head.type == "text":
            return Message(text) if text else None
        if head.type == "tool_use":
            return ToolCall(head.id, head.name, text or self._unstreamed_input(head))
        if head.type == "redacted_thinking":
            return Reasoning("", Block(wire=NAME, data=block.raw.copy()))
        if self._bounds.is_over:
            return Reasoning(text)  # without its signature it cannot go back
        sealed = {"type": "thinking", "thinking": text, "signature": block.signature}
        return Reasoning(text, Block(wire=NAME, data=Raw(encode(sealed))))

    def _unstreamed_input(self, head: BlockHead) -> str:
        """An answer cut before the arguments must not look like a call without any."""
        return "" if self._stop_reason() == "length" else bytes(head.input).decode()

    def _note(self, event: Known | None) -> None:
        match event:
            case MessageStart(message):
                if self._id:
                    raise bad_response("mixed another answer into this one")
                self._id = message.id or "unnamed"
                self._reported.append(message.usage)
            case MessageDelta(delta, usage):
                self._stop = delta.stop_reason or self._stop
                self._reported.append(usage)
            case MessageStop():
                self.is_complete = True
            case _:
                pass

    def _stop_reason(self) -> StopReason:
        if self._bounds.is_over:
            return "length"
        reason = _STOPS.get(self._stop or "")
        return reason or ("tool_calls" if self._has_called else "end")

"""Reads the answer of a chat completion: chunks in, parts out.

Servers differ in small things that mean the same, and all of them are read: reasoning under either of two
names, calls without an index or several with the same one, an end with or without `[DONE]`. The answer has
no parts on the wire: a part ends where the next kind of text begins, calls end together.
"""

from typing import Annotated, Literal

from msgspec import DecodeError, Meta, Raw, Struct
from msgspec.json import Decoder, encode

from zene.domain.messages import Block, Content, Message, Reasoning, ToolCall, Usage
from zene.llm.base import CallStarted, Delta, Done, Output, PartDone, StopReason
from zene.llm.connection import bad_response, unreachable
from zene.llm.refusals import refused_in_stream
from zene.llm.wire import Bounds

NAME = "openai.chat"
_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: Raw = Raw(b"null")
    error: object = None


class _InputDetails(Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(Struct):
    reasoning_tokens: _Count | None = None


class _Usage(Struct):
    prompt_tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    completion_tokens: _Count = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _OpenCall(Struct):
    """A call whose arguments still grow; `sent_id` is the id as the server knows it."""

    index: int
    sent_id: str
    call_id: str
    name: str
    arguments: list[str] = []


_decode_chunk = Decoder(_Chunk).decode
_decode_usage = Decoder(_Usage | None).decode

_STOPS: dict[str, StopReason] = {"length": "length", "content_filter": "refusal"}


class ChatAnswer:
    """One answer; see `wire.Answer`."""

    def __init__(self, bounds: Bounds) -> None:
        self.is_complete = False
        self._bounds = bounds
        self._id = ""
        self._finish_reason: str | None = None
        self._usage = Raw(b"null")
        self._next_index = 0
        self._kind: Literal["message", "reasoning", "calls"] | None = None
        self._texts: list[str] = []
        self._reasoning_field = "reasoning_content"
        self._calls: list[_OpenCall] = []
        self._call_at: dict[int, _OpenCall] = {}
        self._has_called = False

    def read(self, event: bytes) -> list[Output]:
        """What one chunk adds. Whatever follows `[DONE]` is not read."""
        if self.is_complete or event == b"[DONE]":
            self.is_complete = True
            return []
        chunk = _decode_chunk(event)
        if chunk.error is not None:
            raise refused_in_stream(chunk.error)
        if chunk.id and chunk.id != self._id:
            self._belongs(chunk.id)
        if chunk.usage != b"null":
            self._usage = chunk.usage
        outputs: list[Output] = []
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._read_choice(choice, outputs)
        self.is_complete = self._bounds.is_over
        return outputs

    def finish(self) -> list[Output]:
        """Close what is open. Without a finish reason and without `[DONE]` the answer was cut."""
        if self._finish_reason is None and not self.is_complete:
            raise unreachable("ended its answer in the middle")
        outputs = self._closed()
        usage = self._bounds.checked(_usage(self._usage))
        outputs.append(Done(stop_reason=self._stop_reason(), usage=usage, response_id=self._id))
        return outputs

    def _belongs(self, answer_id: str) -> None:
        """All chunks of an answer have one id: another one is somebody else's answer."""
        if self._id:
            raise bad_response("mixed another answer into this one")
        self._id = answer_id

    def _read_choice(self, choice: _Choice, outputs: list[Output]) -> None:
        delta = choice.delta
        if delta is not None:
            if delta.content:
                self._grow("message", delta.content, outputs)
            elif reasoning := delta.reasoning_content or delta.reasoning:
                self._reasoning_field = (
                    "reasoning_content" if delta.reasoning_content else "reasoning"
                )
                self._grow("reasoning", reasoning, outputs)
            elif delta.refusal:
                self._grow("message", delta.refusal, outputs)
            for call in delta.tool_calls or ():
                self._grow_call(call, outputs)
        if choice.finish_reason and self._finish_reason is None:
            self._finish_reason = choice.finish_reason

    def _grow(
        self, kind: Literal["message", "reasoning"], text: str, outputs: list[Output]
    ) -> None:
        if self._kind != kind:
            outputs += self._closed()
            self._kind = kind
        self._bounds.count(text)
        self._texts.append(text)
        outputs.append(Delta(self._next_index, kind, text))

    def _grow_call(self, call: _Call, outputs: list[Output]) -> None:
        """A call begins with an index or id not seen before, and a name; the same id only goes on."""
        if self._kind != "calls":
            outputs += self._closed()
            self._kind = "calls"
        function = call.function or _Function()
        position = call.index if call.index is not None else max(len(self._calls) - 1, 0)
        open_call = self._call_at.get(position)
        if open_call is None or (call.id and function.name and call.id != open_call.sent_id):
            open_call = self._begin_call(call.id or "", function.name)
            self._call_at[position] = open_call
            outputs.append(CallStarted(open_call.index, open_call.call_id, open_call.name))
        if function.arguments:
            self._bounds.count(function.arguments)
            self._bounds.count_arguments(function.arguments)
            open_call.arguments.append(function.arguments)
            outputs.append(Delta(open_call.index, "arguments", function.arguments))

    def _begin_call(self, sent_id: str, name: str | None) -> _OpenCall:
        if not name:
            raise bad_response("went on with a tool call that it never began")
        self._bounds.count_call()
        index = self._next_index + len(self._calls)
        is_new = sent_id and all(call.call_id != sent_id for call in self._calls)
        call_id = sent_id if is_new else f"call_{self._id}_{index}"
        call = _OpenCall(index, sent_id, call_id, name)
        self._calls.append(call)
        return call

    def _closed(self) -> list[Output]:
        """End the part that is open, or the calls that are."""
        text = "".join(self._texts)
        done: list[Output] = []
        if self._kind == "message":
            done = [self._part(Message(text))]
        elif self._kind == "reasoning":
            block = Block(wire=NAME, data=Raw(encode(self._reasoning_field)))
            done = [self._part(Reasoning(text, block))]
        elif self._kind == "calls":
            self._has_called = True
            done = [self._part(self._whole(call)) for call in self._calls]
        self._kind = None
        self._texts, self._calls, self._call_at = [], [], {}
        return done

    def _part(self, content: Content) -> Output:
        self._next_index += 1
        return PartDone(self._next_index - 1, content)

    def _whole(self, call: _OpenCall) -> ToolCall:
        """A call without arguments means an empty object, unless the answer was cut before them."""
        arguments = "".join(call.arguments)
        is_cut = self._stop_reason() == "length"
        return ToolCall(call.call_id, call.name, arguments or ("" if is_cut else "{}"))

    def _stop_reason(self) -> StopReason:
        if self._bounds.is_over:
            return "length"
        reason = _STOPS.get(self._finish_reason or "")
        return reason or ("tool_calls" if self._has_called else "end")


def _usage(reported: Raw) -> Usage | None:
    """None where nothing usable was reported; it is then charged at the bound."""
    try:
        usage = _decode_usage(reported)
    except DecodeError:
        return None
    if usage is None:
        return None
    read = usage.prompt_tokens_details
    written = usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=(read and read.cached_tokens) or 0,
        cache_write_tokens=(read and read.cache_write_tokens) or 0,
        reasoning_tokens=(written and written.reasoning_tokens) or 0,
    )

"""A model that says what a test tells it to: an `llm.Provider` in memory, with the words to write its script."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from hashlib import sha256
from typing import Any, Literal

from msgspec import Raw

from zene.domain.errors import ModelError
from zene.domain.messages import Block, Message, Reasoning, SystemText, ToolCall, Usage
from zene.llm.base import (
    CallStarted,
    Delta,
    Done,
    ModelInfo,
    Output,
    PartDone,
    Request,
    StopReason,
)

Event = Output | ModelError | Callable[[], None]  # a callable is called when the stream gets there
Answer = Sequence[Event] | Callable[[Request], Sequence[Event]]

USAGE = Usage(input_tokens=1000, output_tokens=50)


class Scripted:
    """Gives the answers one after the other; `position` says which is next, the number of calls if not given.

    It refuses a request that no provider takes: without system text in front, or with a call that has no
    result or an id that is there twice.
    """

    def __init__(
        self,
        *answers: Answer,
        wire: str = "scripted",
        info: ModelInfo | None = None,
        position: Callable[[], int] | None = None,
        after_delta: Callable[[], None] | None = None,
    ) -> None:
        self.wire = wire
        self.info = info or ModelInfo(name="scripted", window=128_000)
        self.requests: list[Request] = []
        self.closed_early = 0
        self._answers = answers
        self._position = position
        self._after_delta = after_delta

    async def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        check(request)
        self.requests.append(request)
        number = len(self.requests) - 1 if self._position is None else self._position()
        answer = self._answers[number]
        is_whole = False
        try:
            for event in answer(request) if callable(answer) else answer:
                if isinstance(event, ModelError):
                    raise event
                if callable(event):
                    event()
                else:
                    is_whole = isinstance(event, Done)
                    yield event
                    if self._after_delta is not None and isinstance(event, Delta):
                        self._after_delta()
        finally:
            self.closed_early += not is_whole

    async def close(self) -> None:
        """Nothing is open."""


def check(request: Request) -> None:
    contents = [item.content for item in request.items]
    calls = [content for content in contents if isinstance(content, ToolCall)]
    assert isinstance(contents[0], SystemText)
    assert not any(isinstance(content, SystemText) for content in contents[1:])
    assert all(call.result is not None for call in calls)
    ids = [
        (item.task_id, item.step, item.content.call_id)
        for item in request.items
        if isinstance(item.content, ToolCall)
    ]
    assert len(ids) == len(set(ids))


def call(name: str, /, call_id: str = "", **arguments: Any) -> ToolCall:
    """A call of a tool, with an id made from what it says where none is given."""
    text = json.dumps(arguments)
    return ToolCall(
        call_id=call_id or f"call_{sha256(f'{name}{text}'.encode()).hexdigest()[:8]}",
        name=name,
        arguments=text,
    )


def raw_call(name: str, arguments: str, call_id: str = "call_raw") -> ToolCall:
    """A call whose arguments are this text."""
    return ToolCall(call_id=call_id, name=name, arguments=arguments)


def says(
    *parts: str | Message | ToolCall | Reasoning,
    stop: StopReason | None = None,
    usage: Usage | None = USAGE,
) -> list[Event]:
    """An answer of these parts, its texts in deltas of a few characters."""
    events: list[Event] = []
    for index, part in enumerate(parts):
        content = Message(part) if isinstance(part, str) else part
        if isinstance(content, ToolCall):
            events.append(CallStarted(index, content.call_id, content.name))
        else:
            kind: Literal["message", "reasoning"] = (
                "reasoning" if isinstance(content, Reasoning) else "message"
            )
            starts = range(0, len(content.text), 7)
            events += [Delta(index, kind, content.text[at : at + 7]) for at in starts]
        events.append(PartDone(index, content))
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    return [*events, Done(stop_reason=stop or ("tool_calls" if has_calls else "end"), usage=usage)]


def thinks(text: str, signature: str, wire: str = "scripted") -> Reasoning:
    """Reasoning with the provider's own block."""
    data = json.dumps({"type": "thinking", "thinking": text, "signature": signature})
    return Reasoning(text, block=Block(wire=wire, data=Raw(data.encode())))

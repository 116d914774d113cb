"""Reading an answer of the model while it comes.

Items of text are started as soon as they take time to come, so that followers read along. Calls wait
until the answer is whole, since only then their arguments are.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from zene.agent.base import Operations
from zene.agent.conversation import Conversation
from zene.domain.errors import ModelError
from zene.domain.events import ItemCompleted, ItemStarted, StepRetry
from zene.domain.messages import Content, Reasoning, ToolCall
from zene.llm.base import CallStarted, Delta, Done, Output, PartDone, Retrying

PATIENCE_MS = 15  # an answer that is whole by then is committed in one batch instead of two


@dataclass(slots=True)
class Part:
    """A part of the answer, and the item that it becomes."""

    item_id: str
    kind: Literal["message", "reasoning", "tool_call"]
    pieces: list[str] = field(default_factory=list)
    length: int = 0  # code points
    is_started: bool = False
    is_shown: bool = False
    content: Content | None = None

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self.pieces)


class Reading:
    """The parts of one answer, by index, and its end."""

    def __init__(self, talk: Conversation, ops: Operations) -> None:
        self._talk = talk
        self._ops = ops
        self._parts: dict[int, Part] = {}
        self.is_waiting = False  # for PATIENCE_MS after the first text, unless it is shown before
        self._since: int | None = None
        self._done: Done | None = None

    @property
    def parts(self) -> list[Part]:
        """The parts in the order of the answer."""
        return [self._parts[index] for index in sorted(self._parts)]

    @property
    def done(self) -> Done:
        """How the answer ended. Raises ModelError for one that just stops."""
        if self._done is None:
            raise ModelError("The model's answer has no end.", code="model_interrupted")
        return self._done

    def take(self, output: Output) -> bool:
        """Take what came next; whether something was said that followers should see at once."""
        match output:
            case Delta(index=index, kind=kind, text=text):
                return kind != "arguments" and self._grow(index, kind, text)
            case CallStarted(index=index):
                self._part(index, "tool_call")
            case PartDone(index=index, content=content):
                self._part(index, _kind(content)).content = content
            case Retrying(attempt=attempt, delay_ms=delay_ms, reason=reason):
                self._talk.say(StepRetry(attempt=attempt, delay_ms=delay_ms, reason=reason))
                return True
            case Done():
                self._done = output
        return False

    async def wait(self, outputs: AsyncGenerator[Output, None]) -> AsyncGenerator[None, None]:
        """Read on while the first text waits; yields whenever something was said that followers should see at
        once, which it is after PATIENCE_MS also where nothing comes any more.

        One coroutine task reads meanwhile, since what waits for the next output cannot be left to say
        something. It ends with this generator, and raises what reading raises.
        """
        reader = asyncio.create_task(self._read_on(outputs))
        try:
            await asyncio.wait((reader,), timeout=PATIENCE_MS / 1000)
            self.is_waiting = False
            if not reader.done() and self._start_texts():
                yield
            if await reader:
                yield
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def show(self) -> None:
        """Show the text so far of the items that have just been started."""
        for part in self._parts.values():
            if part.is_started and not part.is_shown:
                part.is_shown = True
                self._ops.delta(part.item_id, part.kind, 0, part.text)

    def start(self, part: Part) -> None:
        """Say that the item of a text began, once."""
        if not part.is_started:
            part.is_started = True
            body = ItemStarted(item_id=part.item_id, kind=part.kind)
            self._talk.say(body, item_id=part.item_id)

    def discard(self) -> None:
        """The answer broke off: what came of its texts stays visible, and nothing becomes history."""
        for part in self.parts:
            if part.kind != "tool_call" and (part.is_started or part.pieces):
                self.discard_part(part)

    def discard_part(self, part: Part) -> None:
        """Close an item that does not become history."""
        self.start(part)
        body = ItemCompleted(
            item_id=part.item_id, kind=part.kind, status="discarded", text=part.text
        )
        self._talk.say(body, item_id=part.item_id)

    def _grow(self, index: int, kind: Literal["message", "reasoning"], text: str) -> bool:
        part = self._part(index, kind)
        offset = part.length
        part.pieces.append(text)
        part.length += len(text)
        if part.is_started:
            if part.is_shown:
                self._ops.delta(part.item_id, part.kind, offset, text)
            return False
        now = self._ops.now_ms()
        if self._since is None:
            self._since = now
            self.is_waiting = True
        return now - self._since >= PATIENCE_MS and self._start_up_to(part)

    async def _read_on(self, outputs: AsyncGenerator[Output, None]) -> bool:
        """Take outputs while the first text waits; whether the last one is to be seen at once."""
        async for output in outputs:
            if self.take(output):
                return True
            if not self.is_waiting:
                break
        return False

    def _start_texts(self) -> bool:
        """Start what came before the first call; whether there is anything."""
        texts = list(takewhile(lambda part: part.kind != "tool_call", self.parts))
        return bool(texts) and self._start_up_to(texts[-1])

    def _start_up_to(self, last: Part) -> bool:
        """Start the item and those before it, since the history is in the order of the answer."""
        parts = self.parts
        ahead = parts[: parts.index(last) + 1]
        if any(part.kind == "tool_call" for part in ahead):
            return False
        for part in ahead:
            self.start(part)
        self.is_waiting = False
        return True

    def _part(self, index: int, kind: Literal["message", "reasoning", "tool_call"]) -> Part:
        part = self._parts.get(index)
        if part is None:
            part = self._parts[index] = Part(item_id=self._ops.new_id("itm"), kind=kind)
        return part


def _kind(content: Content) -> Literal["message", "reasoning", "tool_call"]:
    if isinstance(content, ToolCall):
        return "tool_call"
    return "reasoning" if isinstance(content, Reasoning) else "message"

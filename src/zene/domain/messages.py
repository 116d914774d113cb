"""The history of a session: the items that a model is shown, and what a provider wants back verbatim.

An item keeps, beside its public content, the provider's own block exactly as it was received
(thinking signatures, encrypted reasoning). A block goes back verbatim to the wire format it came
from and is dropped for every other. Items that share `task_id` and `step` came in one model answer,
in this order: this is how parallel calls stay grouped in all three wire formats.
"""

from typing import Literal

from msgspec import Raw, Struct

CallStatus = Literal["succeeded", "failed", "denied", "interrupted"]


class Block(Struct, frozen=True, kw_only=True):
    """A provider's own form of an item; `wire` names the format (`openai.chat`, `openai.responses`, `anthropic`)."""

    wire: str
    data: Raw


class ToolResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a call: `output` is what the model is told, cut where it was long."""

    status: CallStatus
    output: str
    exit_code: int | None = None
    duration_ms: int | None = None


class SystemText(Struct, frozen=True, tag="system_text"):
    """The system text of a task, stored at its first step so that a later edit keeps the prefix."""

    text: str


class UserMessage(Struct, frozen=True, tag="user_message"):
    """What the user asked or, while a task runs, said to steer it."""

    text: str


class Message(Struct, frozen=True, tag="message", omit_defaults=True):
    """Text of the model."""

    text: str
    block: Block | None = None


class Reasoning(Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """Reasoning of the model; `text` may be empty where the provider only sends a sealed block."""

    text: str
    block: Block | None = None


class ToolCall(Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """One call of a tool: `arguments` is the JSON text as the model sent it, `result` None while open."""

    call_id: str
    name: str
    arguments: str
    result: ToolResult | None = None
    block: Block | None = None


class Compaction(Struct, frozen=True, tag="compaction"):
    """A summary that stands for every item before it; the summarised items stay readable by a tool.

    `restated` is what is put in again and never summarised (requests, plan, changed files).
    """

    summary: str
    restated: str = ""


Content = SystemText | UserMessage | Message | Reasoning | ToolCall | Compaction


class Item(Struct, frozen=True, kw_only=True):
    """One element of the history. `step` counts a task's model calls from 1; 0 is before the first."""

    id: str
    task_id: str
    step: int
    content: Content


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one or several model calls. `input_tokens` includes the cached and cache-written ones,
    `output_tokens` includes reasoning. `estimated` marks what a provider did not report.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        """What counts against limits: input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )

"""What Zene asks of a model provider, in values that belong to no provider.

A provider translates a `Request` into its wire format and the answer's bytes into `Output`s. It keeps
nothing between calls, so that any worker can make the next one. A failure is a `ModelError` raised by
the iterator, whose `code` is one of `ERROR_CODES`; nothing else may come out of it.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from zene.domain.messages import Content, Item, Usage

Effort = Literal["none", "low", "medium", "high"]
StopReason = Literal["end", "tool_calls", "length", "refusal"]

ERROR_CODES = frozenset(
    {
        "model_unreachable",  # refused, DNS, connect time-out, cut before the first output
        "model_interrupted",  # cut, stalled or broken off after output had begun
        "model_timeout",  # idle or total time limit
        "model_rate_limited",  # 429
        "model_overloaded",  # 5xx
        "model_unauthorized",  # 401, 403
        "model_not_found",  # 404
        "model_context_too_long",  # the history does not fit the window
        "model_rejected",  # any other 4xx
        "model_bad_response",  # not what the wire format allows, or over a bound
    }
)


class ToolSpec(Struct, frozen=True, kw_only=True):
    """A tool as the model is told of it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Request(Struct, frozen=True, kw_only=True):
    """One model call. `items` begin with the SystemText in force and every ToolCall in them has a result.

    `cache_key` names what shares a prefix (the session). `max_output_tokens` is sent as it is.
    """

    model: str
    items: Sequence[Item]
    tools: Sequence[ToolSpec] = ()
    max_output_tokens: int
    effort: Effort | None = None
    cache_key: str = ""


class Retrying(Struct, frozen=True):
    """The call failed before its first output and is made again after `delay_ms`."""

    attempt: int
    delay_ms: int
    reason: str


class Delta(Struct, frozen=True):
    """More text of the part at `index`. Parts begin with their first delta or with `Started`."""

    index: int
    kind: Literal["message", "reasoning", "arguments"]
    text: str


class CallStarted(Struct, frozen=True):
    """The part at `index` is a tool call; its arguments follow as deltas."""

    index: int
    call_id: str
    name: str


class PartDone(Struct, frozen=True):
    """The part at `index` is whole: a Message, Reasoning or ToolCall with its provider block.

    The text of a message equals its deltas joined. Indices grow in the order of the answer.
    """

    index: int
    content: Content


class Done(Struct, frozen=True, kw_only=True):
    """The answer is complete; always the last output. `usage` is None where the provider sent none."""

    stop_reason: StopReason
    usage: Usage | None
    response_id: str = ""


Output = Retrying | Delta | CallStarted | PartDone | Done


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What is known of a model: `window` in tokens, prices in US dollars per million tokens or None."""

    name: str
    window: int
    output_cap: int = 16_384
    known: bool = True
    input_price: float | None = None
    cached_price: float | None = None
    cache_write_price: float | None = None
    output_price: float | None = None


class Provider(Protocol):
    """One model at one address. Calls may run side by side. Closing twice is harmless."""

    @property
    def wire(self) -> str:
        """The wire format's name, as `Block.wire` has it."""
        ...

    @property
    def info(self) -> ModelInfo:
        """What is known of the model."""
        ...

    def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        """Make the call. Leaving early closes the connection.

        Raises ModelError. After the first Delta, CallStarted or PartDone there is no retry.
        """
        ...

    async def close(self) -> None:
        """Close what it holds."""
        ...

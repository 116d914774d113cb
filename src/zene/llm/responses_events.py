"""The events of OpenAI's Responses, as far as an answer needs them.

There are some sixty kinds, most of them about tools that Zene never asks for, and more with every release:
a kind that is not named here is passed over. What is named must fit.
"""

from typing import Annotated, ClassVar, Literal

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError
from msgspec.json import Decoder

from zene.domain.messages import Usage

_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
_Index = Annotated[int, Meta(ge=0, le=100_000)]


class _Event(Struct, tag_field="type", gc=False):
    """One event of the stream; a Raw member is read only where it is needed."""


class _Reason(Struct):
    reason: str | None = None


class _Response(Struct):
    id: str | None = None
    usage: Raw = Raw(b"null")
    error: object = None
    incomplete_details: _Reason | None = None

    @property
    def reason(self) -> str | None:
        """Why it was cut."""
        return self.incomplete_details.reason if self.incomplete_details else None


class OfResponse(_Event):
    """What tells where the whole answer is."""

    response: _Response


class Created(OfResponse, tag="response.created"):
    """The answer begins."""


class InProgress(OfResponse, tag="response.in_progress"):
    """The model begins its work."""


class Completed(OfResponse, tag="response.completed"):
    """The answer is whole."""


class Incomplete(OfResponse, tag="response.incomplete"):
    """The answer was cut, and why."""


class Failed(OfResponse, tag="response.failed"):
    """There is no answer, and why."""


class ItemAdded(_Event, tag="response.output_item.added"):
    """The item at `output_index` begins."""

    output_index: _Index
    item: Raw


class ItemDone(_Event, tag="response.output_item.done"):
    """The item at `output_index` is whole: only this form of it goes back to the provider."""

    output_index: _Index
    item: Raw


Kind = Literal["message", "reasoning", "arguments"]


class Growth(_Event):
    """More of an item. What the model thought comes in numbered paragraphs."""

    kind: ClassVar[Kind] = "message"
    output_index: _Index
    delta: str
    item_id: str = ""

    @property
    def paragraph(self) -> int:
        """The number of the paragraph that grows."""
        return 0


class TextDelta(Growth, tag="response.output_text.delta"):
    """More of a message's text."""


class RefusalDelta(Growth, tag="response.refusal.delta"):
    """More of the words with which the model declines."""


class ArgumentsDelta(Growth, tag="response.function_call_arguments.delta"):
    """More of a call's arguments."""

    kind = "arguments"


class SummaryDelta(Growth, tag="response.reasoning_summary_text.delta"):
    """More of the summary of what the model thought."""

    kind = "reasoning"
    summary_index: _Index = 0

    @property
    def paragraph(self) -> int:
        """Summaries are numbered."""
        return self.summary_index


class ThoughtDelta(Growth, tag="response.reasoning_text.delta"):
    """More of what the model thought, where it is told in full."""

    kind = "reasoning"
    content_index: _Index = 0

    @property
    def paragraph(self) -> int:
        """Texts are numbered."""
        return self.content_index


class StreamError(_Event, tag="error"):
    """The server gives up in the middle of its answer; it names the reason in one of two places."""

    error: object = None
    code: str | None = None
    message: str | None = None

    @property
    def reason(self) -> object:
        """The error, wherever it stood."""
        return self.error or {"code": self.code, "message": self.message}


class _Text(Struct):
    type: str = ""
    text: str = ""
    refusal: str = ""


class OutputItem(Struct):
    """An item of the answer, of any kind."""

    type: str
    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    content: list[_Text] | None = None
    summary: list[_Text] | None = None
    encrypted_content: str | None = None
    status: str | None = None

    def continues(self, begun: "OutputItem") -> bool:
        """A later form of the same item; a server may begin one without its id."""
        is_same = begun.id is None or self.id == begun.id
        return is_same and (self.type, self.call_id) == (begun.type, begun.call_id)

    @property
    def is_sealed(self) -> bool:
        """Reasoning that goes back whole, without its server having stored anything."""
        return bool(self.encrypted_content or self.content)

    @property
    def declines(self) -> bool:
        """The model says no."""
        return any(part.type == "refusal" for part in self.content or ())

    @property
    def said(self) -> str:
        """The text of a message."""
        return "".join(part.text or part.refusal for part in self.content or ())

    @property
    def thought(self) -> str:
        """The summary, or else the text, of reasoning."""
        return "\n\n".join(part.text for part in self.summary or self.content or ())


class _InputDetails(Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(Struct):
    reasoning_tokens: _Count | None = None


class _Usage(Struct):
    input_tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    output_tokens: _Count = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Kind(Struct):
    type: str = ""
    error: object = None


Known = (
    Created
    | InProgress
    | Completed
    | Incomplete
    | Failed
    | ItemAdded
    | ItemDone
    | TextDelta
    | RefusalDelta
    | ArgumentsDelta
    | SummaryDelta
    | ThoughtDelta
    | StreamError
)
_KNOWN = {kind.__struct_config__.tag for kind in Known.__args__}
_decode_event = Decoder(Known).decode
_decode_kind = Decoder(_Kind).decode
decode_item = Decoder(OutputItem).decode
_decode_usage = Decoder(_Usage | None).decode


def decode_event(event: bytes) -> Known | None:
    """The event, or None for one of a kind that is not named here. Raises DecodeError."""
    try:
        known: Known = _decode_event(event)
    except ValidationError:
        kind = _decode_kind(event)
        if kind.type in _KNOWN:
            raise
        return StreamError(error=kind.error) if kind.error and not kind.type else None
    return known


def usage_of(reported: Raw) -> Usage | None:
    """None where nothing usable was reported; it is then charged at the bound."""
    try:
        usage = _decode_usage(reported)
    except DecodeError:
        return None
    if usage is None:
        return None
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=(read and read.cached_tokens) or 0,
        cache_write_tokens=(read and read.cache_write_tokens) or 0,
        reasoning_tokens=(written and written.reasoning_tokens) or 0,
    )

"""The events of Anthropic's Messages, as far as an answer needs them.

Events, deltas and blocks of a kind that is not known here are passed over, as the format's rules for new
versions ask; what is known must fit.
"""

from typing import Annotated

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError
from msgspec.json import Decoder

from zene.domain.messages import Usage

_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class _Event(Struct, tag_field="type", gc=False):
    """One event of the stream; a Raw member is read only where it is needed."""


class _Answer(Struct):
    id: str = ""
    usage: Raw = Raw(b"null")


class MessageStart(_Event, tag="message_start"):
    """The answer begins; its usage so far."""

    message: _Answer


class BlockStart(_Event, tag="content_block_start"):
    """The block at `index` begins."""

    index: int
    content_block: Raw


class TextDelta(Struct, tag="text_delta", gc=False):
    """More of a text block."""

    text: str


class ThinkingDelta(Struct, tag="thinking_delta", gc=False):
    """More of a thinking block."""

    thinking: str


class SignatureDelta(Struct, tag="signature_delta", gc=False):
    """A thinking block's signature, whole."""

    signature: str


class InputDelta(Struct, tag="input_json_delta", gc=False):
    """More of a tool call's arguments."""

    partial_json: str


class BlockDelta(_Event, tag="content_block_delta"):
    """More of the block at `index`."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockStop(_Event, tag="content_block_stop"):
    """The block at `index` is whole."""

    index: int


class _Stop(Struct):
    stop_reason: str | None = None


class MessageDelta(_Event, tag="message_delta"):
    """Why the answer ends; its usage."""

    delta: _Stop
    usage: Raw = Raw(b"null")


class MessageStop(_Event, tag="message_stop"):
    """The answer is whole."""


class Ping(_Event, tag="ping"):
    """A sign of life."""


class StreamError(_Event, tag="error"):
    """The server gives up in the middle of its answer."""

    error: object = None


class _Kind(Struct):
    type: str = ""


class _Kinds(Struct):
    type: str = ""
    delta: _Kind | None = None


class BlockHead(Struct):
    """What a block begins with; a tool's input is complete here at servers that do not stream it."""

    type: str
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    input: Raw = Raw(b"{}")


class _OutputDetails(Struct):
    thinking_tokens: _Count | None = None


class _Usage(Struct):
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    output_tokens_details: _OutputDetails | None = None


Known = (
    MessageStart
    | BlockStart
    | BlockDelta
    | BlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | StreamError
)
_decode_event = Decoder(Known).decode
_decode_kinds = Decoder(_Kinds).decode
decode_head = Decoder(BlockHead).decode
_decode_usage = Decoder(_Usage | None).decode

_KNOWN_DELTAS = {"text_delta", "thinking_delta", "signature_delta", "input_json_delta"}
_KNOWN_EVENTS = {
    "message_start",
    "content_block_start",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
}
KNOWN_BLOCKS = {"text", "thinking", "redacted_thinking", "tool_use"}


def decode_event(event: bytes) -> Known | None:
    """The event, or None for one of a kind that came after this file. Raises DecodeError."""
    try:
        known: Known = _decode_event(event)
    except ValidationError:
        kinds = _decode_kinds(event)
        is_known = kinds.type in _KNOWN_EVENTS
        if kinds.type == "content_block_delta":
            is_known = kinds.delta is None or kinds.delta.type in _KNOWN_DELTAS
        if is_known:
            raise
        return None
    return known


def usage_of(reported: list[Raw]) -> Usage | None:
    """The last number reported of each kind, as they are cumulative; None where nothing is usable."""
    merged = _Usage()
    try:
        for usage in filter(None, map(_decode_usage, reported)):
            for name in _Usage.__struct_fields__:
                value = getattr(usage, name)
                if value is not None:
                    setattr(merged, name, value)
    except DecodeError:
        return None
    read, written = merged.cache_read_input_tokens or 0, merged.cache_creation_input_tokens or 0
    total = (merged.input_tokens or 0) + read + written
    if not total:
        return None
    details = merged.output_tokens_details
    return Usage(
        input_tokens=total,
        output_tokens=merged.output_tokens or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=(details and details.thinking_tokens) or 0,
    )

"""What a model call may cost before it is made, and what it did cost.

The bound needs no tokenizer: none makes more tokens than bytes. It is what the provider last counted and
the bytes of everything added since, never more than the model's window.
"""

import msgspec

from zene.agent.conversation import Conversation
from zene.domain.messages import Item, Usage
from zene.llm.base import ToolSpec

# The provider said no before it did anything; after any other error it may have counted the whole call.
UNCHARGED = frozenset(
    {
        "model_rate_limited",
        "model_overloaded",
        "model_unauthorized",
        "model_not_found",
        "model_context_too_long",
        "model_rejected",
    }
)
BYTES_A_TOKEN = 4  # usual for text and code; only to judge how full the window is, never to reserve

_encoder = msgspec.json.Encoder()


def bound(talk: Conversation, specs: tuple[ToolSpec, ...], window: int, added: int = 0) -> int:
    """The most input tokens that the next call can have, with `added` bytes beside the history."""
    tokens, size = _counted_and_added(talk, specs)
    return min(window, tokens + size + added)


def estimate(talk: Conversation, specs: tuple[ToolSpec, ...]) -> int:
    """About how many input tokens the next call has."""
    tokens, size = _counted_and_added(talk, specs)
    return tokens + size // BYTES_A_TOKEN


def charged(usage: Usage | None, *, bound: int, cap: int) -> Usage:
    """The usage to settle: the provider's, or the whole reservation where it named none."""
    if usage is None or usage.input_tokens == 0:
        return Usage(input_tokens=bound, output_tokens=cap, estimated=True)
    return usage


def _counted_and_added(talk: Conversation, specs: tuple[ToolSpec, ...]) -> tuple[int, int]:
    """What the provider last counted, and the bytes that it has not counted."""
    if talk.counted is None:
        return 0, sum(map(_size, talk.items)) + len(_encoder.encode(specs))
    tokens, covered = talk.counted
    return tokens, sum(map(_size, talk.items[covered:]))


def _size(item: Item) -> int:
    return len(_encoder.encode(item))

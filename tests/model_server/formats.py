"""What all wire formats of the model server share."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.model_server.scripts import Answer


class Refused(Exception):
    """The request is refused as the provider would refuse it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


class Place(NamedTuple):
    """Where a conversation is: the last prompt, and the assistant's turns since."""

    prompt: str
    step: int


def require(condition: object, message: str, kind: str = "invalid_request_error") -> None:
    """Refuse with 400 unless the condition holds."""
    if not condition:
        raise Refused(400, kind, message)


def pieces(text: str, size: int) -> Iterator[str]:
    """The text as deltas of `size` characters, or of a word each."""
    if size:
        yield from (text[at : at + size] for at in range(0, len(text), size))
        return
    start = 0
    while start < len(text):
        end = text.find(" ", start) + 1 or len(text)
        yield text[start:end]
        start = end


def tokens_of(answer: Answer) -> int:
    """What the server counts for an answer: its deltas, a token each."""
    texts = [answer.reasoning, answer.said, *(to_json(call.arguments) for call in answer.calls)]
    return sum(len(list(pieces(text, answer.delta_size))) for text in texts) + 1


def to_json(value: Any) -> str:
    """JSON with characters as they are: providers send UTF-8, not escapes."""
    return json.dumps(value, ensure_ascii=False)


def text_of(content: Any) -> str:
    """The text of a message, whether it is a string or blocks."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or ())

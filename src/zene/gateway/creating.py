"""Creating things once: the same `Idempotency-Key` gets the same answer, and one thing.

The key is kept in the transaction that makes the thing, so that no crash comes between the two.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct
from starlette.responses import Response

from zene.domain.errors import InvalidInput
from zene.domain.events import Event
from zene.gateway.calls import Call
from zene.gateway.publishing import publish
from zene.store.base import Unit
from zene.store.idempotency import Key, once

S = TypeVar("S", bound=Struct)

MAX_KEY_LENGTH = 255


class Created(Response, Generic[S]):
    """The answer to a creating request, encoded: what it was the first time."""

    media_type = "application/json"


async def create(
    call: Call,
    body: Struct,
    make: Callable[[], Unit[tuple[S, Sequence[Event]]]],
    *,
    status: int = 201,
    session_id: str | None = None,
) -> Created[S]:
    """Run `make`, a unit that gives the answer and the events it appended, or answer as before. The kept
    answer goes with `session_id`. Raises Conflict where the key came with another request.
    """
    store, stated = call.parts.store, _key(call)
    if stated is None:
        made: tuple[S, Sequence[Event]] | None = await store.write(make)
        text = _text(made) if made else ""
    else:
        key = Key(
            user_id=call.user.id,
            key=stated,
            fingerprint=_fingerprint(call, body),
            session_id=session_id,
        )
        kept, made = await store.write(once, key, call.now(), make, _text)
        text = kept.text
    if made:
        await publish(call.parts.bus, made[1])
    return Created(text, status)


def _text(made: tuple[Struct, Sequence[Event]]) -> str:
    return msgspec.json.encode(made[0]).decode()


def _fingerprint(call: Call, body: Struct) -> str:
    request = call.request
    head = f"{request.method} {request.url.path}\n".encode()
    return call.parts.seal.fingerprint(head + msgspec.json.encode(body))


def _key(call: Call) -> str | None:
    stated = call.request.headers.getlist("idempotency-key")
    if not stated:
        return None
    if len(stated) > 1 or not 0 < len(stated[0]) <= MAX_KEY_LENGTH or not stated[0].isprintable():
        raise InvalidInput(
            f"Idempotency-Key is one printable text of at most {MAX_KEY_LENGTH} characters."
        )
    return stated[0]

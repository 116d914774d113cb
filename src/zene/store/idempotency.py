"""Idempotency: the same key gets the same answer, and one thing is made.

The key is written in the transaction that makes the thing. A second caller meets the first one's row, also
while that one's transaction is still under way, and never makes a second thing.
"""

from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct
from sqlalchemy import bindparam, delete, select, text, tuple_, update

from zene.domain.errors import Conflict
from zene.store.base import Statement, Unit
from zene.store.schema import idempotency

T = TypeVar("T")

_CLAIM = Statement(
    text(
        "INSERT INTO idempotency (user_id, key, fingerprint, session_id, created_at)"
        " VALUES (:user, :key, :fingerprint, :session, :now)"
        " ON CONFLICT (user_id, key) DO NOTHING RETURNING key"
    )
)
_mine = (
    idempotency.c.user_id == bindparam("user"),
    idempotency.c.key == bindparam("named"),
)
_FIND = Statement(select(idempotency.c.fingerprint, idempotency.c.response).where(*_mine))
_ANSWER = Statement(update(idempotency).where(*_mine).values(response=bindparam("answer")))
_FORGET = Statement(
    delete(idempotency).where(
        tuple_(idempotency.c.user_id, idempotency.c.key).in_(
            select(idempotency.c.user_id, idempotency.c.key)
            .where(idempotency.c.created_at < bindparam("before"))
            .limit(bindparam("limit"))
        )
    )
)


class Key(Struct, frozen=True, kw_only=True):
    """A caller's key for one request; `fingerprint` tells it from other requests. Where the answer tells
    of a session, the row is deleted with it.
    """

    user_id: str
    key: str
    fingerprint: str
    session_id: str | None = None


class Answer(Struct, frozen=True):
    """The answer as it was the first time; `is_new` when this was it."""

    text: str
    is_new: bool


def once(
    key: Key, now: int, make: Callable[[], Unit[T]], encode: Callable[[T], str]
) -> Unit[tuple[Answer, T | None]]:
    """Run the unit that `make` begins and keep its encoded result under the key; where the key was used
    before, run nothing and give the kept answer with None. Raises Conflict for another request's key.
    """
    claimed = yield _CLAIM(
        user=key.user_id,
        key=key.key,
        fingerprint=key.fingerprint,
        session=key.session_id,
        now=now,
    )
    if not claimed:
        return (yield from _kept(key)), None
    result = yield from make()
    answer = encode(result)
    yield _ANSWER(user=key.user_id, named=key.key, answer=answer)
    return Answer(answer, is_new=True), result


def forget(*, before: int, limit: int) -> Unit[None]:
    """Remove some of the keys from before that time."""
    yield _FORGET(before=before, limit=limit)


def _kept(key: Key) -> Unit[Answer]:
    found = yield _FIND(user=key.user_id, named=key.key)
    fingerprint, answer = found[0]
    if fingerprint != key.fingerprint:
        raise Conflict(
            "This Idempotency-Key was used with another request. Use a new one.",
            code="idempotency_key_reused",
        )
    return Answer(answer, is_new=False)

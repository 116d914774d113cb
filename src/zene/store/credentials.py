"""What sign-ins rest on: signing keys, families of refresh tokens, and wrong passwords counted."""

from msgspec import Struct
from sqlalchemy import bindparam, delete, exists, insert, select, text, update

from zene.domain.errors import Unauthorized
from zene.domain.users import User
from zene.store.base import Statement, Unit
from zene.store.schema import families, login_failures, refresh_tokens, signing_keys
from zene.store.users import standing

FAILURES_KEPT_MS = 24 * 3600 * 1000
REUSE_MS = 30_000  # within which a used token still gets the same successor

_ADD_KEY = Statement(insert(signing_keys))
_LIST_KEYS = Statement(
    select(signing_keys.c.kid, signing_keys.c.private_sealed, signing_keys.c.public_jwk).order_by(
        signing_keys.c.created_at.desc()
    )
)
_START = Statement(
    insert(families).values(
        id=bindparam("id"), user_id=bindparam("user"), created_at=bindparam("now")
    )
)
_ADD_TOKEN = Statement(
    insert(refresh_tokens).values(
        hash=bindparam("hash"), family_id=bindparam("family"), expires_at=bindparam("expires_at")
    )
)
_USE = Statement(
    update(refresh_tokens)
    .where(
        refresh_tokens.c.hash == bindparam("old"),
        refresh_tokens.c.used_at.is_(None),
        refresh_tokens.c.expires_at > bindparam("now"),
    )
    .values(used_at=bindparam("now"), successor_sealed=bindparam("sealed"))
    .returning(refresh_tokens.c.family_id)
)
_USED = Statement(
    select(
        refresh_tokens.c.family_id,
        refresh_tokens.c.used_at,
        refresh_tokens.c.successor_sealed,
    ).where(refresh_tokens.c.hash == bindparam("old"))
)
_FAMILY_USER = Statement(
    select(families.c.user_id).where(
        families.c.id == bindparam("family"), families.c.revoked_at.is_(None)
    )
)
_REVOKE = Statement(
    update(families)
    .where(families.c.id == bindparam("family"), families.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)
_NOTE_FAILURE = Statement(
    text(
        "INSERT INTO login_failures (email, count, last_at) VALUES (:email, 1, :now)"
        " ON CONFLICT (email) DO UPDATE SET count = login_failures.count + 1, last_at = :now"
        " RETURNING count"
    )
)
_CLEAR_FAILURES = Statement(
    delete(login_failures).where(login_failures.c.email == bindparam("email"))
)
_FAILURES = Statement(
    select(login_failures.c.count, login_failures.c.last_at).where(
        login_failures.c.email == bindparam("email")
    )
)
_FORGET_TOKENS = Statement(
    delete(refresh_tokens)
    .where(
        refresh_tokens.c.hash.in_(
            select(refresh_tokens.c.hash)
            .where(refresh_tokens.c.expires_at <= bindparam("now"))
            .limit(bindparam("limit"))
        )
    )
    .returning(refresh_tokens.c.family_id)
)
_FORGET_FAMILY = Statement(
    delete(families).where(
        families.c.id == bindparam("family"),
        ~exists().where(refresh_tokens.c.family_id == families.c.id),
    )
)
_FORGET_FAILURES = Statement(
    delete(login_failures).where(
        login_failures.c.email.in_(
            select(login_failures.c.email)
            .where(login_failures.c.last_at <= bindparam("before"))
            .limit(bindparam("limit"))
        )
    )
)


class StoredKey(Struct, frozen=True):
    """A signing key: the private part sealed, the public part as a JWK."""

    kid: str
    private_sealed: str
    public_jwk: str


class Rotated(Struct, frozen=True):
    """A refresh token was exchanged; the successor is shown to whoever holds the old one."""

    user: User
    family_id: str
    successor_sealed: str


def add_key(kid: str, private_sealed: str, public_jwk: str, now: int) -> Unit[None]:
    """Keep a new signing key."""
    yield _ADD_KEY(kid=kid, private_sealed=private_sealed, public_jwk=public_jwk, created_at=now)


def list_keys() -> Unit[list[StoredKey]]:
    """All signing keys, the newest first."""
    return [StoredKey(*row) for row in (yield _LIST_KEYS())]


def start_family(
    family_id: str, user_id: str, token_hash: str, now: int, expires_at: int
) -> Unit[None]:
    """Begin a sign-in with its first refresh token."""
    yield _START(id=family_id, user=user_id, now=now)
    yield _ADD_TOKEN(hash=token_hash, family=family_id, expires_at=expires_at)


def rotate(
    token_hash: str, successor_hash: str, successor_sealed: str, now: int, expires_at: int
) -> Unit[Rotated | None]:
    """Exchange a refresh token. Used again within 30 s it gets the same successor; used later it was
    stolen: the family is revoked and the answer is None. Raises Unauthorized for one that is unknown,
    expired, or of a sign-in that has ended.
    """
    rows = yield _USE(old=token_hash, now=now, sealed=successor_sealed)
    if rows:
        family_id = rows[0][0]
        yield _ADD_TOKEN(hash=successor_hash, family=family_id, expires_at=expires_at)
        return Rotated((yield from _holder(family_id)), family_id, successor_sealed)
    rows = yield _USED(old=token_hash)
    if not rows or rows[0][1] is None:
        raise _ended()
    family_id, used_at, sealed = rows[0]
    user = yield from _holder(family_id)
    if now - used_at > REUSE_MS:
        yield _REVOKE(family=family_id, now=now)
        return None
    return Rotated(user, family_id, sealed)


def revoke_family(family_id: str, now: int) -> Unit[None]:
    """End a sign-in; harmless when it has ended."""
    yield _REVOKE(family=family_id, now=now)


def note_failure(email: str, now: int) -> Unit[int]:
    """Count a wrong password; how many there are now."""
    count: int = (yield _NOTE_FAILURE(email=email, now=now))[0][0]
    return count


def clear_failures(email: str) -> Unit[None]:
    """Forget the wrong passwords after a right one."""
    yield _CLEAR_FAILURES(email=email)


def failures(email: str) -> Unit[tuple[int, int]]:
    """How many wrong passwords in a row, and when the last was."""
    rows = yield _FAILURES(email=email)
    return (rows[0][0], rows[0][1]) if rows else (0, 0)


def forget(*, now: int, limit: int) -> Unit[None]:
    """Remove some of what nothing rests on any more: expired tokens, their sign-ins, failures of yesterday."""
    for (family_id,) in (yield _FORGET_TOKENS(now=now, limit=limit)):
        yield _FORGET_FAMILY(family=family_id)
    yield _FORGET_FAILURES(before=now - FAILURES_KEPT_MS, limit=limit)


def _holder(family_id: str) -> Unit[User]:
    rows = yield _FAMILY_USER(family=family_id)
    user = (yield from standing(rows[0][0], family_id)) if rows else None
    if user is None:
        raise _ended()
    return user


def _ended() -> Unauthorized:
    return Unauthorized("This sign-in has ended. Sign in again.", code="signed_out")

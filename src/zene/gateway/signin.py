"""Signing in: who is asking, and whether that still holds.

An access token says who somebody is for a quarter of an hour; the store is asked at most every two
seconds whether that person is still there and still signed in, so that `zene user disable`, run beside
the server, takes effect within five seconds.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from msgspec import Struct

from zene.domain.errors import TooMany, Unauthorized
from zene.domain.ids import RANDOM_BYTES, make_id
from zene.domain.users import User
from zene.gateway.keys import Keys
from zene.gateway.passwords import Passwords
from zene.gateway.seals import Seal
from zene.gateway.shapes import Tokens
from zene.gateway.tokens import (
    AUDIENCE,
    ISSUER,
    LIFETIME_SECONDS,
    Claims,
    decode_segment,
    encode_segment,
)
from zene.store import credentials, users
from zene.store.base import Store

REFRESH_LIFETIME_MS: Final = 30 * 24 * 3600 * 1000
_STANDING_MS = 2_000
_STANDINGS = 10_000
_FREE_FAILURES = 10
_PURPOSE = "refresh token"
_LONGEST_WAIT_MS = 15 * 60 * 1000


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks: the user as of at most two seconds ago, and when the token ends (seconds since 1970)."""

    user: User
    claims: Claims


class SignIns:
    """Makes, checks and ends sign-ins. `clock` is in ms since 1970."""

    def __init__(
        self,
        *,
        store: Store,
        seal: Seal,
        passwords: Passwords,
        clock: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._seal = seal
        self._passwords = passwords
        self._clock = clock
        self._random_bytes = random_bytes
        self._keys = Keys(store, seal, clock, random_bytes)
        self._standings: dict[tuple[str, str], tuple[User | None, int]] = {}

    async def login(self, email: str, password: str) -> Tokens:
        """Sign in with a password. Raises Unauthorized, the same for an unknown e-mail and a wrong
        password, and TooMany after ten failures for one e-mail, for longer each time.
        """
        email = email.strip().casefold()
        await self._check_failures(email)
        found = await self._store.read(users.find_login, email)
        matches = await self._passwords.matches(found[1] if found else None, password)
        if found is None or not matches or found[0].disabled_at is not None:
            await self._store.write(credentials.note_failure, email, self._clock())
            raise Unauthorized("The e-mail or the password is wrong.", code="wrong_credentials")
        await self._store.write(credentials.clear_failures, email)
        return await self._begin(found[0])

    async def refresh(self, token: str) -> Tokens:
        """Exchange a refresh token. Shown again within 30 s it gets the same successor, so that two
        programs may refresh at once; later that means it was stolen, and ends the sign-in.
        """
        now = self._clock()
        successor = encode_segment(self._random_bytes(32))
        rotated = await self._store.write(
            credentials.rotate,
            _hashed(token),
            _hashed(successor),
            self._seal.close(successor.encode(), _PURPOSE),
            now,
            now + REFRESH_LIFETIME_MS,
        )
        if rotated is None:
            raise Unauthorized("This refresh token was used before. Sign in again.", code="reused")
        shown = self._seal.open(rotated.successor_sealed, _PURPOSE).decode()
        access = await self._access_token(rotated.user.id, rotated.family_id)
        return _tokens(access, shown)

    async def logout(self, caller: Caller) -> None:
        """End the sign-in that the access token belongs to: its refresh tokens and the token itself."""
        claims = caller.claims
        await self._store.write(credentials.revoke_family, claims.sid, self._clock())
        self._standings.pop((claims.sub, claims.sid), None)

    async def authenticate(self, token: str) -> Caller:
        """Who has this access token. Raises Unauthorized where it, the user or the sign-in is not good any more."""
        now = self._clock()
        claims = (await self._keys.for_token(token)).verify(token, now // 1000)
        return Caller(user=await self._standing(claims), claims=claims)

    async def still_good(self, claims: Claims, *, look: bool = False) -> bool:
        """Whether a stream that was opened with these claims may go on; with `look` as of this moment."""
        if self._clock() // 1000 >= claims.exp:
            return False
        if look:
            self._standings.pop((claims.sub, claims.sid), None)
        try:
            await self._standing(claims)
        except Unauthorized:
            return False
        return True

    async def public_keys(self) -> list[dict[str, str]]:
        """The keys that access tokens are verified with, as JSON Web Keys."""
        return [key.public_jwk for key in (await self._keys.current()).keys]

    def is_known(self, claims: Claims) -> bool:
        """Whether `still_good` would say yes without a look at the store."""
        user, looked_at = self._standings.get((claims.sub, claims.sid), (None, 0))
        now = self._clock()
        return user is not None and _is_fresh(looked_at, now) and now // 1000 < claims.exp

    async def _begin(self, user: User) -> Tokens:
        now, family_id = (
            self._clock(),
            make_id("sgn", self._clock(), self._random_bytes(RANDOM_BYTES)),
        )
        refresh_token = encode_segment(self._random_bytes(32))
        await self._store.write(
            credentials.start_family,
            family_id,
            user.id,
            _hashed(refresh_token),
            now,
            now + REFRESH_LIFETIME_MS,
        )
        access = await self._access_token(user.id, family_id)
        return _tokens(access, refresh_token)

    async def _access_token(self, user_id: str, family_id: str) -> str:
        now = self._clock() // 1000
        claims = Claims(
            iss=ISSUER,
            aud=AUDIENCE,
            sub=user_id,
            sid=family_id,
            iat=now,
            exp=now + LIFETIME_SECONDS,
            jti=encode_segment(self._random_bytes(12)),
        )
        return (await self._keys.current()).issue(claims)

    async def _standing(self, claims: Claims) -> User:
        key, now = (claims.sub, claims.sid), self._clock()
        user, looked_at = self._standings.get(key, (None, 0))
        if not _is_fresh(looked_at, now):
            user = await self._store.read(users.standing, claims.sub, claims.sid)
            if len(self._standings) >= _STANDINGS:
                self._standings.pop(next(iter(self._standings)))
            self._standings[key] = (user, now)
        if user is None:
            raise Unauthorized("This sign-in has ended. Sign in again.", code="signed_out")
        return user

    async def _check_failures(self, email: str) -> None:
        count, last = await self._store.read(credentials.failures, email)
        if count < _FREE_FAILURES:
            return
        wait = min(1000 * 2 ** min(count - _FREE_FAILURES, 20), _LONGEST_WAIT_MS)
        left = last + wait - self._clock()
        if left > 0:
            raise TooMany(
                "Too many wrong passwords for this e-mail. Wait and try again.",
                code="too_many_failures",
                retry_after=left / 1000,
            )


def _tokens(access: str, refresh: str) -> Tokens:
    return Tokens(access_token=access, refresh_token=refresh, expires_in=LIFETIME_SECONDS)


def _is_fresh(looked_at: int, now: int) -> bool:
    return 0 <= now - looked_at < _STANDING_MS


def _hashed(token: str) -> str:
    """What the store keeps of a refresh token. Raises Unauthorized for what none can be."""
    try:
        return sha256(decode_segment(token)).hexdigest()
    except ValueError:
        raise Unauthorized("The refresh token is not valid. Sign in again.") from None

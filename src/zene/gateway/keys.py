"""The installation's signing keys: in the store, sealed, made when first needed."""

import asyncio
from collections.abc import Callable

import msgspec

from zene.gateway.seals import Seal
from zene.gateway.tokens import Keyring, SigningKey, encode_segment
from zene.store import credentials
from zene.store.base import Store

_RELOAD_MS = 2_000
_PURPOSE = "signing key"


class Keys:
    """What tokens are signed and verified with; read again when a token of an unknown key shows up."""

    def __init__(
        self,
        store: Store,
        seal: Seal,
        clock: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._random_bytes = random_bytes
        self._ring: Keyring | None = None
        self._read_at = 0
        self._reading = asyncio.Lock()

    async def current(self) -> Keyring:
        """All keys there are."""
        async with self._reading:
            if self._ring is None:
                self._ring = await self._read() or await self._make()
            return self._ring

    async def for_token(self, token: str) -> Keyring:
        """The keys, read again (not too often) where none of them made the token."""
        ring = self._ring or await self.current()
        if not ring.knows(token) and self._clock() - self._read_at > _RELOAD_MS:
            async with self._reading:
                self._ring = ring = await self._read() or ring
        return ring

    async def _read(self) -> Keyring | None:
        self._read_at = self._clock()
        rows = await self._store.read(credentials.list_keys)
        keys = [SigningKey(row.kid, self._seal.open(row.private_sealed, _PURPOSE)) for row in rows]
        return Keyring(keys) if keys else None

    async def _make(self) -> Keyring:
        private = self._random_bytes(32)
        key = SigningKey(encode_segment(self._random_bytes(9)), private)
        sealed = self._seal.close(private, _PURPOSE)
        jwk = msgspec.json.encode(key.public_jwk).decode()
        await self._store.write(credentials.add_key, key.kid, sealed, jwk, self._clock())
        return Keyring([key])

"""Passwords: argon2id in a thread, few at a time, and as slow for an unknown e-mail as for a known one."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from zene.domain.errors import InvalidInput, TooMany

T = TypeVar("T")

MIN_LENGTH = 10
MAX_LENGTH = 1024
_MEMORY_KIB = 64 * 1024
_WAITING_LIMIT = 64  # at 160 ms each and two at a time, 5 s of waiting


class Passwords:
    """Hashes and checks. Memory is bounded: at most `side_by_side` of them take 64 MiB each."""

    def __init__(self, *, side_by_side: int = 2, memory_kib: int = _MEMORY_KIB) -> None:
        self._hasher = PasswordHasher(memory_cost=memory_kib)
        self._slots = asyncio.Semaphore(side_by_side)
        self._waiting = 0
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """The argon2id hash to store. Raises InvalidInput for one that is too short or too long."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise InvalidInput(
                f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.", code="bad_password"
            )
        return await self._in_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether it is the password; for None (nobody has that e-mail) False, after as long a time."""
        if stored is None:
            if self._nobodys is None:
                self._nobodys = await self._in_thread(self._hasher.hash, "nobody's password")
            await self._in_thread(self._verify, self._nobodys, password)
            return False
        return await self._in_thread(self._verify, stored, password)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[..., T], *args: str) -> T:
        if self._waiting >= _WAITING_LIMIT:
            raise TooMany("Too many people are signing in. Try again shortly.", retry_after=5)
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work, *args)
        finally:
            self._waiting -= 1

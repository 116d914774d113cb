"""Turns: what writes the same user's row goes to the store one after the other.

There they would wait for that row all the same, in no fair order, and each with a connection that other
users' tasks need meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """Those of one worker; a turn lasts as long as the store lets a unit take."""

    def __init__(self) -> None:
        self._users: dict[str, _Queue] = {}

    @asynccontextmanager
    async def of(self, user_id: str) -> AsyncGenerator[None, None]:
        """Wait for the user's turn, and have it inside."""
        queue = self._users.setdefault(user_id, _Queue())
        queue.length += 1
        try:
            async with queue.turn:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._users[user_id]


class _Queue:
    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.length = 0

"""Who follows which session here, and the look at the store that finds what was never published.

A process that dies between commit and publish leaves events that nobody announces. So one loop asks the
store, in one query, how far the log of every followed session is; a stream that is behind reads the rest.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from zene import telemetry
from zene.domain.errors import TooMany, Unavailable, ZeneError
from zene.store import log as event_log
from zene.store import tasks
from zene.store.base import Store

LOOK_SECONDS = 1.0  # with the tick of a second, an unpublished event costs two

log = telemetry.logger(__name__)


class Followed:
    """A session that is followed: `head` is the last seq its log is known to have, None once it is gone;
    `queue` the places of its queued tasks, which are those at that seq or later.
    """

    def __init__(self) -> None:
        self.head: int | None = 0
        self.queue: Mapping[str, int] = {}
        self.followers = 0


class Followers:
    """All streams and long polls of this gateway. `watch` must run while any is open."""

    def __init__(self, store: Store, *, per_user: int) -> None:
        self._store = store
        self._per_user = per_user
        self._sessions: dict[str, Followed] = {}
        self._users: Counter[str] = Counter()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self.draining = False

    @property
    def open(self) -> int:
        """How many there are."""
        return self._users.total()

    @property
    def users(self) -> int:
        """How many users they are of."""
        return len(self._users)

    @contextmanager
    def follow(self, session_id: str, user_id: str) -> Iterator[Followed]:
        """Count a follower in. Raises TooMany over the user's cap, Unavailable when the gateway is going away."""
        if self.draining:
            raise Unavailable("This gateway is going away. Connect again with your cursor.")
        if self._users[user_id] >= self._per_user:
            raise TooMany(
                f"You follow {self._per_user} streams already. Close one first.",
                code="too_many_streams",
                retry_after=5,
            )
        followed = self._sessions.setdefault(session_id, Followed())
        followed.followers += 1
        self._nobody.clear()
        self._users[user_id] += 1
        try:
            yield followed
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._sessions[session_id]
            if not self._sessions:
                self._nobody.set()
            self._users[user_id] -= 1
            if not self._users[user_id]:
                del self._users[user_id]

    async def gone(self) -> None:
        """Wait until nobody follows anything."""
        await self._nobody.wait()

    async def watch(self) -> None:
        """Look at the heads of all followed sessions, again and again; ends only by being cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._sessions:
                try:
                    await self._look()
                except ZeneError as err:
                    log.warning("followers.not_looked", error=err.message)

    async def _look(self) -> None:
        asked = list(self._sessions)
        heads = await self._store.read(event_log.heads, asked)
        moved = [each for each in asked if self._has_moved(each, heads.get(each))]
        queues = await self._store.read(tasks.queues, moved) if moved else {}
        for session_id in moved:
            if followed := self._sessions.get(session_id):
                followed.queue = queues.get(session_id, {})
                followed.head = heads.get(session_id)

    def _has_moved(self, session_id: str, head: int | None) -> bool:
        """Whether its log has grown or gone; without an event no place in its queue changes either."""
        followed = self._sessions.get(session_id)
        return followed is not None and followed.head != head

"""One reader's events, between a bus that never waits and a reader that may be slow: bounded, and it says so."""

import asyncio
from collections import deque
from collections.abc import Sequence

from zene.bus.base import Live

QUEUE_LENGTH = 4096  # events a follower may be behind before it has to read the store


class Follower:
    """Implements `bus.base.Subscription`; a bus offers, one reader takes."""

    def __init__(self) -> None:
        self.lagged = False
        self.ended = False
        self._events: deque[Live] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def has_more(self) -> bool:
        """Whether something has arrived that was not taken yet."""
        return bool(self._events)

    def offer(self, events: Sequence[Live]) -> None:
        """Queue the events; one that would overflow ends here, and its reader goes on from the store."""
        if self.ended:
            return
        if len(self._events) + len(events) > QUEUE_LENGTH:
            self.end(lagged=True)
            return
        self._events.extend(events)
        _wake(self._waiter)

    def end(self, *, lagged: bool = False) -> None:
        """Nothing more is offered; what is queued can still be read."""
        if not self.ended:
            self.ended, self.lagged = True, lagged
            _wake(self._waiter)

    async def next(self, timeout_seconds: float) -> Live | None:
        """The next event, or None when the time is up or the subscription has ended."""
        if not self._events and not self.ended:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            # a timer and a future cost half of what asyncio.timeout and an Event do, for every event
            timer = loop.call_later(timeout_seconds, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._events.popleft() if self._events else None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

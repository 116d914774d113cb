"""One reader's events, between a bus that never waits and a reader that may be slow: bounded, and it says so."""

import asyncio
from collections.abc import Sequence

from zene.bus.base import Live

QUEUE_LENGTH = 4096  # events a follower may be behind before it has to read the store


class Follower:
    """Implements `bus.base.Subscription`; a bus offers, one reader takes. `is_blind` is one that may miss something."""

    __slots__ = ("_events", "_loop", "_waiter", "ended", "is_blind", "lagged")

    def __init__(self) -> None:
        self.is_blind = False
        self.lagged = False
        self.ended = False
        self._events: list[Live] = []  # nearly always one or none, for which a deque is large
        self._loop = asyncio.get_running_loop()
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

    def nudge(self) -> None:
        """Let whoever waits for the next event have None now."""
        _wake(self._waiter)

    async def next(self, timeout_seconds: float | None = None) -> Live | None:
        """The next event, or None when the time is up, after a nudge, and where the subscription has ended."""
        if not self._events and not self.ended:
            timer = None
            self._waiter = waiter = self._loop.create_future()
            if timeout_seconds is not None:
                timer = self._loop.call_later(timeout_seconds, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        return self._events.pop(0) if self._events else None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

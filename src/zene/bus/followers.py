"""One reader's events, between a bus that never waits and a reader that may be slow: bounded, and it says so."""

import asyncio
from collections.abc import Sequence

from zene.bus.base import Live

QUEUE_LENGTH = 4096  # events a follower may be behind before it has to read the store


class Follower:
    """Implements `bus.base.Subscription`; a bus offers, one reader takes. `is_blind` is one that may miss something."""

    __slots__ = (
        "_events",
        "_loop",
        "_timer",
        "_waiter",
        "_waits_until",
        "ended",
        "is_blind",
        "lagged",
    )

    def __init__(self) -> None:
        self.is_blind = False
        self.lagged = False
        self.ended = False
        self._events: list[Live] = []  # nearly always one or none, for which a deque is large
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._waits_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

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
            self._waiter = waiter = self._loop.create_future()
            self._wait_until(self._loop.time() + timeout_seconds)
            try:
                await waiter
            finally:
                self._waiter = None
        return self._events.pop(0) if self._events else None

    def _wait_until(self, moment: float) -> None:
        """One timer serves many waits, since an event comes long before the time is up: it is set anew only
        where it would ring too late.
        """
        self._waits_until = moment
        if self._timer is not None and self._timer.when() > moment:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._waits_until:
            self._timer = self._loop.call_at(self._waits_until, self._ring)
        else:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

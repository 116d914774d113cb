"""One reader's events, between a bus that never waits and a reader that may be slow: bounded, and it says so."""

import asyncio
from collections.abc import Sequence

from zene import telemetry
from zene.bus.base import Live, Taker

QUEUE_LENGTH = 4096  # events a follower may be behind before it has to read the store

log = telemetry.logger(__name__)


class Follower:
    """Implements `bus.base.Subscription`; a bus offers, one reader takes. `is_blind` is one that may miss something."""

    __slots__ = ("_events", "_loop", "_take", "_waiter", "ended", "is_blind", "lagged")

    def __init__(self) -> None:
        self.is_blind = False
        self.lagged = False
        self.ended = False
        self._events: list[Live] = []  # nearly always one or none, for which a deque is large
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._take: Taker | None = None

    @property
    def has_more(self) -> bool:
        """Whether something has arrived that was not taken yet."""
        return bool(self._events)

    def offer(self, events: Sequence[Live]) -> None:
        """Queue the events; one that would overflow ends here, and its reader goes on from the store."""
        if self.ended:
            return
        if self._take is not None:
            try:
                events = self._take(events)
            except Exception:  # its own fault, not the bus's: it begins again from the store
                log.exception("follower.broke")
                self.end(lagged=True)
                return
            if not events:
                return
        if len(self._events) + len(events) > QUEUE_LENGTH:
            self.end(lagged=True)
            return
        self._events.extend(events)
        self._wake()

    def end(self, *, lagged: bool = False) -> None:
        """Nothing more is offered; what is queued can still be read."""
        if not self.ended:
            self.ended, self.lagged = True, lagged
            self._wake()

    def nudge(self) -> None:
        """Let whoever waits for the next event have None now."""
        self._wake()

    async def next(
        self, timeout_seconds: float | None = None, take: Taker | None = None
    ) -> Live | None:
        """The next event, or None when the time is up, after a nudge, and where the subscription has ended. Until
        then `take` comes before everything.
        """
        if not self._events and not self.ended:
            timer = None
            self._waiter = self._loop.create_future()
            self._take = take
            if timeout_seconds is not None:
                timer = self._loop.call_later(timeout_seconds, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = self._take = None
                if timer is not None:
                    timer.cancel()
        return self._events.pop(0) if self._events else None

    def _wake(self) -> None:
        self._take = None  # what comes from now on comes after what is queued
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

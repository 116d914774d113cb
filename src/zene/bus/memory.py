"""The bus of one process: what is published is handed to the followers that are there, and kept nowhere."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from zene.bus.base import Live, Signal
from zene.domain.events import Draft, ItemDelta

QUEUE_LENGTH = 4096  # events a follower may be behind before it has to read the store
SIGNALS_LENGTH = 1024
TEXT_LIMIT = 1 << 20  # code points of an open item that are kept for late joiners


class MemoryBus:
    """Implements `bus.base.Bus` for gateways and workers of one process."""

    def __init__(self) -> None:
        self._followers: dict[str, set[_Subscription]] = {}
        self._texts: dict[str, dict[str, _Text]] = {}
        self._signals: set[asyncio.Queue[Signal]] = set()
        self._work = asyncio.Event()

    async def publish(self, session_id: str, events: Sequence[Live]) -> None:
        """Hand the events to every follower; forget the text of items they complete."""
        texts = self._texts.get(session_id)
        if texts:
            for event in events:
                if event.completes is not None:
                    texts.pop(event.completes, None)
            if not texts:
                del self._texts[session_id]
        for follower in self._followers.get(session_id, ()):
            follower.offer(events)

    async def publish_delta(self, session_id: str, draft: Draft, live: Live) -> None:
        """Hand the delta to every follower and keep the item's text so far."""
        if isinstance(delta := draft.body, ItemDelta):
            texts = self._texts.setdefault(session_id, {})
            texts.setdefault(delta.item_id, _Text(draft)).replace(delta)
        for follower in self._followers.get(session_id, ()):
            follower.offer((live,))

    async def drafts(self, session_id: str) -> list[Draft]:
        """The text so far of each open item of the session."""
        return [text.whole() for text in self._texts.get(session_id, {}).values()]

    @asynccontextmanager
    async def subscribe(self, session_id: str) -> AsyncGenerator["_Subscription", None]:
        """Follow a session from now on."""
        follower = _Subscription()
        self._followers.setdefault(session_id, set()).add(follower)
        try:
            yield follower
        finally:
            followers = self._followers.get(session_id, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(session_id, None)

    async def wake(self) -> None:
        """Let `wakened` return."""
        self._work.set()

    async def wakened(self, timeout_seconds: float) -> bool:
        """Wait for `wake`, also for one that came before."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        except TimeoutError:
            return False
        self._work.clear()
        return True

    async def signal(self, signal: Signal) -> None:
        """Hand the signal to every worker; one that has too many unread finds it by its sweep."""
        for queue in self._signals:
            if not queue.full():
                queue.put_nowait(signal)

    @asynccontextmanager
    async def signals(self) -> AsyncGenerator[AsyncIterator[Signal], None]:
        """Signals from now on."""
        queue: asyncio.Queue[Signal] = asyncio.Queue(SIGNALS_LENGTH)
        self._signals.add(queue)
        try:
            yield _endless(queue)
        finally:
            self._signals.discard(queue)

    async def close(self) -> None:
        """End every subscription."""
        for followers in self._followers.values():
            for follower in followers:
                follower.end()


class _Subscription:
    """A bounded queue; one that overflows ends, and its reader goes on from the store."""

    def __init__(self) -> None:
        self.lagged = False
        self._events: deque[Live] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def offer(self, events: Sequence[Live]) -> None:
        if len(self._events) + len(events) > QUEUE_LENGTH:
            self.lagged = True
            self.end()
        elif not self._ended:
            self._events.extend(events)
            self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    async def next(self, timeout_seconds: float) -> Live | None:
        """The next event, or None when the time is up or the subscription has ended."""
        if not self._events and not self._ended:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        return self._events.popleft() if self._events else None

    async def __aiter__(self) -> AsyncIterator[Live]:
        while (event := await self.next(3600)) is not None or not self._ended:
            if event is not None:
                yield event


class _Text:
    """The text of an open item, as pieces, so that a long one is not copied for each delta."""

    def __init__(self, first: Draft) -> None:
        self._first = first
        self._pieces: list[str] = []
        self._length = 0

    def replace(self, delta: ItemDelta) -> None:
        if delta.offset != self._length:
            kept = "".join(self._pieces)[: delta.offset]
            self._pieces, self._length = [kept], len(kept)
        if self._length < TEXT_LIMIT:
            self._pieces.append(delta.text)
            self._length += len(delta.text)

    def whole(self) -> Draft:
        text = "".join(self._pieces)
        return replace(self._first, body=replace(self._first.body, offset=0, text=text))


async def _endless(queue: asyncio.Queue[Signal]) -> AsyncIterator[Signal]:
    while True:
        yield await queue.get()

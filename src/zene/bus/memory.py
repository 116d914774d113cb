"""The bus of one process: what is published is handed to the followers that are there, and kept nowhere."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from zene.bus.base import Asked, Live, Process, Signal, Transfer
from zene.bus.followers import Follower
from zene.bus.memory_transfers import MemoryTransfers
from zene.bus.texts import Text
from zene.bus.words import Words
from zene.domain.errors import SetupError
from zene.domain.events import Draft, ItemDelta


def open_bus(url: str, installation: str) -> "MemoryBus":
    """The bus of this process. Raises SetupError where the URL says more than that."""
    if url.partition(":")[2].strip("/"):
        raise SetupError(f"ZENE_BUS={url}: the bus in memory has no address; it is memory://.")
    del installation  # nobody else is here
    return MemoryBus()


class MemoryBus:
    """Implements `bus.base.Bus` for gateways and workers of one process."""

    losses = 0

    def __init__(self) -> None:
        self._followers: dict[str, set[Follower]] = {}  # of sessions, and of users
        self._texts: dict[str, dict[str, Text]] = {}
        self._present: dict[str, tuple[Process, float]] = {}
        self._words = Words()
        self._transfers = MemoryTransfers()

    async def start(self) -> None:
        """It is there already."""

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
            if delta.offset == 0:
                self._texts.setdefault(session_id, {})[delta.item_id] = Text(draft)
            if text := self._texts.get(session_id, {}).get(delta.item_id):
                text.replace(delta)
        for follower in self._followers.get(session_id, ()):
            follower.offer((live,))

    async def drafts(self, session_id: str) -> list[Draft]:
        """The text so far of each open item of the session."""
        return [text.whole() for text in self._texts.get(session_id, {}).values()]

    async def tell(self, user_id: str, word: Live) -> None:
        """Hand the word to every follower of the user."""
        for follower in self._followers.get(user_id, ()):
            follower.offer((word,))

    @asynccontextmanager
    async def subscribe(
        self, session_id: str, user_id: str | None = None
    ) -> AsyncGenerator[Follower, None]:
        """Follow a session, for a user, from now on."""
        follower = Follower()
        followed = [session_id] if user_id is None else [session_id, user_id]
        for each in followed:
            self._followers.setdefault(each, set()).add(follower)
        try:
            yield follower
        finally:
            for each in followed:
                self._followers[each].discard(follower)
                if not self._followers[each]:
                    del self._followers[each]

    async def announce(self, process: Process, seconds: float) -> None:
        """Keep it for so long."""
        self._present[process.name] = process, time.monotonic() + seconds

    async def withdraw(self, name: str) -> None:
        """Forget it."""
        self._present.pop(name, None)

    async def present(self) -> list[Process]:
        """Those whose time is not up."""
        now = time.monotonic()
        return [process for process, until in self._present.values() if now < until]

    async def wake(self) -> None:
        """Let `wakened` return."""
        self._words.wake()

    async def wakened(self, timeout_seconds: float) -> bool:
        """Wait for `wake`, also for one that came before."""
        return await self._words.wakened(timeout_seconds)

    async def signal(self, signal: Signal) -> None:
        """Hand the signal to every worker."""
        self._words.tell(signal)

    @asynccontextmanager
    async def signals(self) -> AsyncGenerator[AsyncIterator[Signal], None]:
        """Signals from now on."""
        with self._words.listening() as signals:
            yield signals

    def ask(self, request: bytes, *, about: str) -> AbstractAsyncContextManager[Transfer]:
        """Ask a worker."""
        return self._transfers.ask(request, about=about)

    def asked(
        self, holds: Callable[[str], bool]
    ) -> AbstractAsyncContextManager[AsyncIterator[Asked]]:
        """Requests from now on."""
        return self._transfers.asked(holds)

    async def close(self) -> None:
        """End every subscription and every transfer."""
        self._transfers.close()
        for followers in self._followers.values():
            for follower in followers:
                follower.end()

"""Words to the workers of this process: a wake-up that is kept once, and signals for each that listens."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from zene.bus.base import Signal

SIGNALS_LENGTH = 1024


class Words:
    """What every bus does with a word once it has arrived here."""

    def __init__(self) -> None:
        self._signals: set[asyncio.Queue[Signal]] = set()
        self._work = asyncio.Event()

    def wake(self) -> None:
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

    def tell(self, signal: Signal) -> None:
        """Hand the signal to every listener; one that has too many unread finds it by its sweep."""
        for queue in self._signals:
            if not queue.full():
                queue.put_nowait(signal)

    @contextmanager
    def listening(self) -> Iterator[AsyncIterator[Signal]]:
        """Signals from now on."""
        queue: asyncio.Queue[Signal] = asyncio.Queue(SIGNALS_LENGTH)
        self._signals.add(queue)
        try:
            yield _endless(queue)
        finally:
            self._signals.discard(queue)


async def _endless(queue: asyncio.Queue[Signal]) -> AsyncIterator[Signal]:
    while True:
        yield await queue.get()

"""Transfers inside one process: both sides are here, and hand each other their frames."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from zene.bus.asking import Served, check, name_of_worker, nobody
from zene.bus.base import ASK_SECONDS, Asked, Transfer
from zene.bus.sides import Frame, Side


class MemoryTransfers:
    """Implements `bus.base.Transfers`."""

    def __init__(self) -> None:
        self._sides: dict[str, Side] = {}  # those that ask
        self._workers: list[Served] = []
        self._somebody = asyncio.Event()
        self._numbers = itertools.count()

    @asynccontextmanager
    async def ask(self, request: bytes, *, about: str) -> AsyncGenerator[Transfer, None]:
        """Ask the worker that holds it, or the first."""
        check(request, len(self._sides))
        worker = await self._worker(about)
        name = str(next(self._numbers))
        there, here = _Wire(), _Wire()
        forget = partial(self._sides.pop, name)
        side = self._sides[name] = Side(name_of_worker(name), there, forget, asks=True)
        here.to = side.take
        there.to = worker.begin(name, request, here).take
        try:
            yield side
        finally:
            side.close()

    @asynccontextmanager
    async def asked(
        self, holds: Callable[[str], bool]
    ) -> AsyncGenerator[AsyncIterator[Asked], None]:
        """Be asked from now on."""
        worker = Served(holds)
        self._workers.append(worker)
        self._somebody.set()
        try:
            yield worker.requests()
        finally:
            self._workers.remove(worker)
            worker.close()

    def close(self) -> None:
        """End every transfer."""
        for side in list(self._sides.values()):
            side.close()

    async def _worker(self, about: str) -> Served:
        while not self._workers:
            self._somebody.clear()
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    await self._somebody.wait()
            except TimeoutError:
                raise nobody() from None
        return next((each for each in self._workers if each.holds(about)), self._workers[0])


class _Wire:
    """Implements `bus.sides.Wire`; `to` is the other side."""

    to: Callable[[Frame], None]

    async def clear(self) -> None:
        """Nothing is ever on its way."""

    def post(self, frame: Frame) -> None:
        """Hand it over."""
        self.to(frame)

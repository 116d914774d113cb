"""What every bus does for a worker that is asked, and says where nobody is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

from zene.bus.base import MOST_TRANSFERS, REQUEST_BYTES, Asked
from zene.bus.sides import Side, Wire
from zene.domain.errors import InvalidInput, Unavailable


class Served:
    """The transfers that one worker answers, and requests that it has not taken up yet."""

    def __init__(self, holds: Callable[[str], bool]) -> None:
        self.holds = holds
        self.sides: dict[str, Side] = {}
        self._asked: asyncio.Queue[Asked] = asyncio.Queue(MOST_TRANSFERS)

    @property
    def is_full(self) -> bool:
        """Whether it can take no more."""
        return len(self.sides) >= MOST_TRANSFERS

    def begin(self, name: str, request: bytes, wire: Wire) -> Side:
        """Queue the request of the side `name`; the worker's side of it. Raises Unavailable where there are too many."""
        if self.is_full or self._asked.full():
            raise too_many()
        own = name_of_worker(name)
        side = self.sides[own] = Side(name, wire, partial(self.sides.pop, own), asks=False)
        self._asked.put_nowait(Asked(request, side))
        return side

    async def requests(self) -> AsyncIterator[Asked]:
        """One after the other, for ever."""
        while True:
            yield await self._asked.get()

    def close(self) -> None:
        """Fail what is not over."""
        for side in list(self.sides.values()):
            side.fail(Unavailable("The worker is stopping.", retry_after=1))
            side.close()


def check(request: bytes, transfers: int) -> None:
    """What one that asks is held to. Raises InvalidInput, Unavailable."""
    if len(request) > REQUEST_BYTES:
        raise InvalidInput(f"A request has at most {REQUEST_BYTES} bytes.")
    if transfers >= MOST_TRANSFERS:
        raise too_many()


def name_of_worker(name: str) -> str:
    """What the side that answers is called: both may be in one process."""
    return f"w{name}"


def nobody() -> Unavailable:
    """No worker took a request in time."""
    return Unavailable("No worker is there to reach files; try again soon.", retry_after=2)


def too_many() -> Unavailable:
    """There are as many transfers as a process may have."""
    return Unavailable("Too many files are on their way; try again soon.", retry_after=1)

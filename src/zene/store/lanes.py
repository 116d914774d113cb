"""Lanes: a few connections to PostgreSQL that serve one queue, each owned by one task.

A unit goes on the first lane that is free; what becomes of it there `transactions` says. Its caller waits for
`SECONDS` at most, for the queue, a connection and the beginning of a transaction together and then for each
answer; then the connection is cut, since one that is half open says nothing for ever. A unit that was given up
before it began does not begin any more; what goes on in a lane is not ended by a caller that leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from zene.domain.errors import Unavailable
from zene.store.base import T, Unit
from zene.store.outages import ends_connection, translated

if TYPE_CHECKING:
    from asyncpg import Connection

SECONDS = 2.8  # without an answer
GATHER_SECONDS = 0.03  # that a group waits at most for the one before it
WAITING = 8192  # units that may wait; one more is refused
_LOOKED_AT = 4  # units for each that may come into a group


class Work:
    """A unit that waits for a lane, and its answer; the line while it runs, and when it last got on. Units that
    run together each have another `apart`.
    """

    __slots__ = ("_limit", "answer", "apart", "begin", "got_on", "line")

    def __init__(
        self, begin: Callable[[], Unit[Any]], apart: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.begin = begin
        self.apart = apart
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.got_on = loop.time()
        self._limit: asyncio.TimerHandle | None = None
        self.line: _Line | None = None

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.answer.done()

    def gets_on(self) -> None:
        """The server has answered."""
        self.got_on = self.answer.get_loop().time()

    def succeed(self, result: Any) -> None:
        """Give the result to whoever still waits."""
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the error to whoever still waits."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def look_after(self) -> None:
        """Give it up once it has not got on for too long, and look again until then."""
        if self.is_over:
            return
        loop = self.answer.get_loop()
        left = self.got_on + SECONDS - loop.time()
        if left > 0:
            self._limit = loop.call_later(left, self.look_after)
            return
        self.fail(Unavailable("The database does not answer in time. Try again.", retry_after=1))
        if self.line is not None:
            self.line.lose()

    def forget(self) -> None:
        """Nobody looks after it any more."""
        if self._limit is not None:
            self._limit.cancel()


class _Line(NamedTuple):
    """A connection, whose it is, and how many outages there had been when it was made."""

    connection: "Connection[Any]"
    lanes: "Lanes"
    outages: int

    def lose(self) -> None:
        """Cut it; those that are no younger are not trusted any more."""
        self.connection.terminate()
        self.lanes.outages = max(self.lanes.outages, self.outages + 1)


Serve = Callable[["Connection[Any]", Sequence[Work]], Awaitable[None]]


class Lanes:
    """Started by the first unit. `serve` runs up to `most` units at once and answers each; with what it raises
    all of them fail.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable["Connection[Any]"]],
        serve: Serve,
        count: int,
        *,
        most: int = 1,
    ) -> None:
        self._connect = connect
        self._serve = serve
        self._count = count
        self._most = most
        self._waiting: asyncio.Queue[Work | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0  # lanes
        self._is_free = asyncio.Event()
        self._is_free.set()
        self.outages = 0  # connections from before the last are not used any more

    async def run(self, begin: Callable[[], Unit[T]], apart: str = "") -> T:
        """Run the unit; returns after its commit. Raises Unavailable, also where nobody knows whether it
        was committed.
        """
        if self._waiting.qsize() >= WAITING:
            raise Unavailable("Too much waits for the database. Try again.", retry_after=1)
        work = Work(begin, apart, asyncio.get_running_loop())
        work.look_after()
        self.take(work)
        try:
            result: T = await work.answer
            return result
        finally:
            work.forget()

    def take(self, work: Work) -> None:
        """Run it, too, whose caller waits elsewhere."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._lane()) for _ in range(self._count)]
        self._waiting.put_nowait(work)

    async def close(self) -> None:
        """Run what waits, then end the lanes."""
        tasks, self._tasks = self._tasks, []
        for _ in tasks:
            self._waiting.put_nowait(None)
        await asyncio.gather(*tasks)

    async def _lane(self) -> None:
        line: _Line | None = None
        try:
            while (work := await self._waiting.get()) is not None:
                if self._most > 1 and not self._is_free.is_set():
                    await self._wait_a_moment()
                if group := self._gather(work):
                    line = await self._run(group, line)
        finally:
            if line is not None:
                line.connection.terminate()

    async def _wait_a_moment(self) -> None:
        """Until the other lanes are free: more gather meanwhile, and large groups cost less for each."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._is_free.wait()

    def _gather(self, first: Work) -> list[Work]:
        """What is run at once of all that waits, without what nobody waits for any more."""
        group = {} if first.is_over else {first.apart: first}
        for _ in range(min(self._waiting.qsize(), _LOOKED_AT * (self._most - len(group)))):
            work = self._waiting.get_nowait()
            if work is None or work.apart in group:
                self._waiting.put_nowait(work)  # another lane's, or the next group's
            elif not work.is_over:
                group[work.apart] = work
            if len(group) == self._most:
                break
        return [*group.values()]

    async def _run(self, group: Sequence[Work], line: "_Line | None") -> "_Line | None":
        """Serve them over the lane's line, or a new one where that is no good; the line to go on with."""
        self._busy += 1
        self._is_free.clear()
        try:
            if line is None or line.outages != self.outages or line.connection.is_closed():
                old, line = line, None
                if old is not None:
                    old.connection.terminate()
                outages = self.outages
                line = _Line(await self._connect(), self, outages)
            for work in group:
                work.line = line
            await self._serve(line.connection, group)
        except Exception as err:  # noqa: BLE001 - the lane's edge: the units fail, the lane lives
            if line is not None and ends_connection(err):
                line.lose()
            for work in group:
                work.fail(translated(err))
        finally:
            for work in group:
                work.line = None
            self._busy -= 1
            if not self._busy:
                self._is_free.set()
        return line

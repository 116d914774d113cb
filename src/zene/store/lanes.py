"""Lanes: a few connections to PostgreSQL that serve one queue, each owned by one task.

A unit is one transaction on the first lane that is free. Its caller waits for `SECONDS` at most, for the
queue, a connection and the first answer together and then for each further one; then the connection is
cut, since one that is half open says nothing for ever. What goes on in a lane is not ended by a caller
that leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from zene.domain.errors import Unavailable
from zene.store.base import T, Unit
from zene.store.numbered import HasMore, drive, drive_alone
from zene.store.outages import CONTENTION, ends_connection, translated

if TYPE_CHECKING:
    from asyncpg import Connection

SECONDS = 2.8  # without an answer
WAITING = 8192  # units that may wait; one more is refused
ATTEMPTS = 5  # of a unit that others come before


class Work:
    """A unit that waits for a lane, and its answer; the line while it runs, and when it last got on."""

    __slots__ = ("answer", "begin", "got_on", "limit", "line")

    def __init__(self, begin: Callable[[], Unit[Any]], loop: asyncio.AbstractEventLoop) -> None:
        self.begin = begin
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.got_on = loop.time()
        self.limit: asyncio.TimerHandle | None = None
        self.line: _Line | None = None


class _Line(NamedTuple):
    """A connection, and how many outages there had been when it was made."""

    connection: "Connection[Any]"
    outages: int


class Lanes:
    """Started by the first unit; `begins` is the SQL that begins a transaction.

    Where units `only_read`, one of a single statement is run without a transaction, which takes one round
    trip in place of three. Which those are is found out: a unit may be called anew.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable["Connection[Any]"]],
        begins: str,
        count: int,
        *,
        only_read: bool = False,
    ) -> None:
        self._connect = connect
        self._begins = begins
        self._count = count
        self._waiting: asyncio.Queue[Work | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._only_read = only_read
        self._longer: set[CodeType] = set()  # units that have more than one statement
        self._outages = 0  # connections from before the last are not used any more

    async def run(self, begin: Callable[[], Unit[T]]) -> T:
        """Run the unit; returns after its commit. Raises Unavailable, also where nobody knows whether it
        was committed.
        """
        if self._waiting.qsize() >= WAITING:
            raise Unavailable("Too much waits for the database. Try again.", retry_after=1)
        loop = asyncio.get_running_loop()
        if not self._tasks:
            self._tasks = [loop.create_task(self._lane()) for _ in range(self._count)]
        work = Work(begin, loop)
        work.limit = loop.call_later(SECONDS, self._look_after, work)
        self._waiting.put_nowait(work)
        try:
            result: T = await work.answer
            return result
        finally:
            work.limit.cancel()

    async def close(self) -> None:
        """Run what waits, then end the lanes."""
        tasks, self._tasks = self._tasks, []
        for _ in tasks:
            self._waiting.put_nowait(None)
        await asyncio.gather(*tasks)

    def _look_after(self, work: Work) -> None:
        """Give a unit up that has not got on for too long."""
        if work.answer.done():
            return
        loop = work.answer.get_loop()
        left = work.got_on + SECONDS - loop.time()
        if left > 0:
            work.limit = loop.call_later(left, self._look_after, work)
            return
        work.answer.set_exception(
            Unavailable("The database does not answer in time. Try again.", retry_after=1)
        )
        if work.line is not None:
            self._lose(work.line)

    async def _lane(self) -> None:
        line: _Line | None = None
        try:
            while (work := await self._waiting.get()) is not None:
                if not work.answer.done():  # else nobody waits for it any more
                    line = await self._serve(work, line)
        finally:
            if line is not None:
                line.connection.terminate()

    async def _serve(self, work: Work, line: "_Line | None") -> "_Line | None":
        """Run the unit over the lane's line, or a new one where that is no good; the line to go on with."""
        try:
            if line is None or line.outages != self._outages or line.connection.is_closed():
                old, line = line, None
                if old is not None:
                    old.connection.terminate()
                outages = self._outages
                line = _Line(await self._connect(), outages)
            _answer(work, await self._transact(line, work))
        except Exception as err:  # noqa: BLE001 - the lane's edge: the unit fails, the lane lives
            if line is not None and ends_connection(err):
                self._lose(line)
            _fail(work, translated(err))
        return line

    def _lose(self, line: "_Line") -> None:
        """Cut it; those that are no younger are not trusted any more."""
        line.connection.terminate()
        self._outages = max(self._outages, line.outages + 1)

    async def _transact(self, line: "_Line", work: Work) -> Any:
        work.line = line
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return await self._once(line.connection, work)
                except CONTENTION:
                    continue
            return await self._once(line.connection, work)
        finally:
            work.line = None

    async def _once(self, connection: "Connection[Any]", work: Work) -> Any:
        code = _code(work.begin) if self._only_read else None
        if code is not None and code not in self._longer:
            try:
                return await drive_alone(connection, work.begin())
            except HasMore:
                self._longer.add(code)
        await connection.execute(self._begins)
        try:
            result = await drive(connection, work.begin(), partial(_gets_on, work))
        except Exception:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
        return result


def _code(begin: Callable[[], Unit[Any]]) -> CodeType | None:
    """What is the same for every call of a unit, and for every closure made in one place."""
    unit = begin.func if isinstance(begin, partial) else begin
    code = getattr(unit, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _gets_on(work: Work) -> None:
    work.got_on = work.answer.get_loop().time()


def _answer(work: Work, result: Any) -> None:
    if not work.answer.done():
        work.answer.set_result(result)


def _fail(work: Work, error: Exception) -> None:
    if not work.answer.done():
        work.answer.set_exception(error)

"""What a lane does with its units: a transaction for each, a read that may need none, or one for many."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from asyncpg import ConnectionDoesNotExistError

from zene.store.base import Unit
from zene.store.lanes import Work
from zene.store.numbered import HasMore, drive, drive_alone
from zene.store.outages import CONTENTION, ends_connection
from zene.store.together import drive_together

if TYPE_CHECKING:
    from asyncpg import Connection

ATTEMPTS = 5  # of a unit that others come before
_WRITES = "BEGIN"  # at the connection's own isolation: the shortest, since every unit says it
_READS = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


async def write(connection: "Connection[Any]", works: Sequence[Work]) -> None:
    """A transaction for each."""
    for work in works:
        await _patiently(partial(_once, connection, _WRITES, work))


class Reading:
    """One of a single statement is run without a transaction, which takes one round trip in place of three.
    Which those are is found out: a unit may be called anew.
    """

    def __init__(self) -> None:
        self._longer: set[CodeType] = set()  # units that have more than one statement

    async def __call__(self, connection: "Connection[Any]", works: Sequence[Work]) -> None:
        """Each on a snapshot."""
        for work in works:
            await _patiently(partial(self._once, connection, work))

    async def _once(self, connection: "Connection[Any]", work: Work) -> None:
        code = _code(work.begin)
        if code is not None and code not in self._longer:
            try:
                work.succeed(await drive_alone(connection, work.begin()))
            except HasMore:
                self._longer.add(code)
            else:
                return
        await _once(connection, _READS, work)


class Together:
    """One transaction for all that have what they need at once; the others are handed on to be run `alone`, as
    all are where the error of one takes the transaction down.
    """

    def __init__(self, alone: Callable[[Work], None]) -> None:
        self._alone = alone

    async def __call__(self, connection: "Connection[Any]", works: Sequence[Work]) -> None:
        """As many at once as there are. Raises only what is none of a unit's own errors."""
        await connection.execute(_WRITES)
        begun = [work for work in sorted(works, key=_apart) if not work.is_over]
        for work in begun:
            work.gets_on()
        try:
            ended = await drive_together(connection, begun)
        except Exception as err:
            if ends_connection(err):
                raise
            if connection.is_closed():
                raise ConnectionDoesNotExistError("it was cut") from err
            await connection.execute("ROLLBACK")
            ended = {}
        else:
            await connection.execute("COMMIT")
        for work in begun:
            if work in ended:
                work.succeed(ended[work])
            elif not work.is_over:
                self._alone(work)


async def _patiently(attempt: Callable[[], Awaitable[None]]) -> None:
    """Once more, and more often, where others have come before it."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except CONTENTION:
            continue
    return await attempt()


async def _once(connection: "Connection[Any]", begins: str, work: Work) -> None:
    await connection.execute(begins)
    work.gets_on()
    if work.is_over:  # who was told that it failed may have gone on by now
        await connection.execute("ROLLBACK")
        return
    try:
        result = await drive(connection, work.begin(), work.gets_on)
    except Exception:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    work.succeed(result)


def _apart(work: Work) -> str:
    return work.apart


def _code(begin: Callable[[], Unit[Any]]) -> CodeType | None:
    """What is the same for every call of a unit, and for every closure made in one place."""
    unit = begin.func if isinstance(begin, partial) else begin
    code = getattr(unit, "__code__", None)
    return code if isinstance(code, CodeType) else None

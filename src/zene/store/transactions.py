"""What a lane does with its units: a transaction for each, a read that may need none, or one for many."""

from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

from zene.store.base import Unit
from zene.store.lanes import Work
from zene.store.numbered import HasMore, drive, drive_alone
from zene.store.outages import CONTENTION, ends_connection
from zene.store.together import drive_together

if TYPE_CHECKING:
    from asyncpg import Connection

ATTEMPTS = 5  # of a unit that others come before
_WRITES = (
    "BEGIN"  # at the isolation that the connection has: the shortest, since every unit says it
)
_READS = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class GoAlone(Exception):
    """The unit has left its group, without effect."""


async def write(connection: "Connection[Any]", works: Sequence[Work]) -> None:
    """A transaction for each."""
    for work in works:
        work.succeed(await _transact(connection, _WRITES, work))


class Reading:
    """One of a single statement is run without a transaction, which takes one round trip in place of three.
    Which those are is found out: a unit may be called anew.
    """

    def __init__(self) -> None:
        self._longer: set[CodeType] = set()  # units that have more than one statement

    async def __call__(self, connection: "Connection[Any]", works: Sequence[Work]) -> None:
        """Each on a snapshot."""
        for work in works:
            code = _code(work.begin)
            if code is not None and code not in self._longer:
                try:
                    work.succeed(await drive_alone(connection, work.begin()))
                    continue
                except HasMore:
                    self._longer.add(code)
            work.succeed(await _transact(connection, _READS, work))


async def write_together(connection: "Connection[Any]", works: Sequence[Work]) -> None:
    """One transaction for all that have what they need at once; the others fail with GoAlone, as all do where
    the error of one takes the transaction down.
    """
    await connection.execute(_WRITES)
    try:
        ended = await drive_together(connection, sorted(works, key=_apart))
    except Exception as err:
        if ends_connection(err) or connection.is_closed():
            raise
        await connection.execute("ROLLBACK")
        ended = []
    else:
        await connection.execute("COMMIT")
    for work, result in ended:
        work.succeed(result)
    for work in works:
        work.fail(GoAlone())  # who has an answer keeps it


async def _transact(connection: "Connection[Any]", begins: str, work: Work) -> Any:
    for _ in range(ATTEMPTS - 1):
        try:
            return await _once(connection, begins, work)
        except CONTENTION:
            continue
    return await _once(connection, begins, work)


async def _once(connection: "Connection[Any]", begins: str, work: Work) -> Any:
    await connection.execute(begins)
    try:
        result = await drive(connection, work.begin(), work.gets_on)
    except Exception:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return result


def _apart(work: Work) -> str:
    return work.apart


def _code(begin: Callable[[], Unit[Any]]) -> CodeType | None:
    """What is the same for every call of a unit, and for every closure made in one place."""
    unit = begin.func if isinstance(begin, partial) else begin
    code = getattr(unit, "__code__", None)
    return code if isinstance(code, CodeType) else None

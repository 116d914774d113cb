"""One copy of every query: what a unit of work is, and who runs it.

A unit of work is a plain generator function. It yields `Query`s, receives their rows and returns its
result. It has no other effect and may be called anew for another attempt, so times and ids come in as
arguments. SQLite drives units inside SAVEPOINTs of a group commit; PostgreSQL one transaction each, or, where
they are made for it, many together.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from sqlalchemy import Table, insert
from sqlalchemy.sql.elements import ClauseElement

P = ParamSpec("P")
T = TypeVar("T")

Row = Sequence[Any]
Rows = Sequence[Row]


class Statement:
    """A SQLAlchemy Core statement, built once with bound parameters and compiled once per dialect."""

    __slots__ = ("compiled", "expression")

    def __init__(self, expression: ClauseElement) -> None:
        self.expression = expression
        self.compiled: dict[str, Any] = {}

    def __call__(self, **parameters: Any) -> "Query":
        """The statement with its values, to be yielded by a unit."""
        return Query(self, (parameters,))

    def many(self, parameters: Sequence[Mapping[str, Any]]) -> "Query":
        """The statement once for each set of values; yields no rows."""
        return Query(self, parameters)


class Insertion(Statement):
    """The INSERT of whole rows, a value for every column: of any number of them as one statement."""

    __slots__ = ("table",)

    def __init__(self, table: Table) -> None:
        super().__init__(insert(table))
        self.table = table


class Query(NamedTuple):
    """What a unit yields."""

    statement: Statement
    parameters: Sequence[Mapping[str, Any]]


Unit = Generator[Query, Rows, T]


class Store(Protocol):
    """Where the truth is. Closing it twice is harmless; using it afterwards raises Unavailable."""

    async def migrate(self) -> None:
        """Bring the schema to this release's. Raises SetupError for a schema newer than this release."""
        ...

    async def check(self) -> None:
        """Change nothing. Raises SetupError unless the schema is this release's."""
        ...

    async def write(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit and commit it; when this returns, the effect is on disk. A unit that raises leaves
        nothing behind, and its error comes out here. One whose caller is cancelled meanwhile may be
        committed all the same. Raises Unavailable.
        """
        ...

    async def write_together(
        self, apart: str, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write`, for what many do at once: units that run at the same time may share a transaction, each
        statement made once for all that have come to it. So a unit's first statement locks what it is about
        with FOR UPDATE, finding nothing where it may not go on, and what it touches then is touched by no other
        that is kept `apart` from it by another value.
        """
        ...

    async def read(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit that only reads, beside the writer, on one consistent snapshot. Raises Unavailable."""
        ...

    async def unblock(self) -> None:
        """End the transactions of processes that stand still, whose locks would be held for as long; where
        only the process itself can (SQLite), nothing. Raises Unavailable.
        """
        ...

    async def close(self) -> None:
        """Finish what waits, then let go."""
        ...

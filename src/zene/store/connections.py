"""SQLite without a thread or a queue: opening a file, running units on a connection, its errors as ours."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import BindParameter
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from zene.domain.errors import SetupError, Unavailable
from zene.store.base import Query, Rows, Statement, T, Unit
from zene.store.columns import for_dialect, metadata

_DIALECT: Final = SQLiteDialect_pysqlite(paramstyle="named")

_BUSY_SECONDS = 5.0  # another process, such as `zene user`, may be writing
_STATEMENTS = 512  # prepared ones that a connection keeps
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 10000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
)
_ITS_OWN = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made readable by nobody else where it is new. Raises sqlite3.Error, OSError."""
    path.touch(mode=0o600)
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    return connection


def drive(connection: sqlite3.Connection, unit: Unit[T]) -> T:
    """Run a unit's statements inside the transaction that is open; its result."""
    try:
        rows = _execute(connection, next(unit))
        while True:
            rows = _execute(connection, unit.send(rows))
    except StopIteration as end:
        result: T = end.value
        return result


def compiled(statement: Statement) -> str:
    """The statement's SQL, kept for the next time."""
    sql = str(_Compiler(_DIALECT, statement.expression))
    statement.compiled["sqlite"] = sql
    return sql


def definitions() -> Iterator[str]:
    """The SQL that makes every table and index of this release."""
    for table in metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=_DIALECT))
        for index in table.indexes:
            yield str(CreateIndex(for_dialect(index, "sqlite")).compile(dialect=_DIALECT))


def ends_transaction(error: Exception) -> bool:
    """Whether it says more than that one unit is wrong: a full disk, a failing one, a damaged file."""
    return isinstance(error, sqlite3.Error) and not isinstance(error, _ITS_OWN)


def translated(error: Exception) -> Exception:
    """SQLite's error as Zene's; any other, and one that only a wrong unit makes, as it is."""
    if isinstance(error, OSError):
        return Unavailable(f"The database cannot be opened: {error}.", retry_after=5)
    if not ends_transaction(error):
        return error
    if not isinstance(error, sqlite3.OperationalError):
        return SetupError(f"The database file is damaged or no database: {error}.")
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"):
        return Unavailable(
            "The disk that the database is on is full. Make room there; nothing was lost.",
            code="disk_full",
            retry_after=5,
        )
    return Unavailable(f"The database does not answer: {error}.", retry_after=2)


def roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction without effect, where SQLite has not done so itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _execute(connection: sqlite3.Connection, query: Query) -> Rows:
    statement, parameters = query
    sql = statement.compiled.get("sqlite") or compiled(statement)
    if len(parameters) == 1:
        return connection.execute(sql, parameters[0]).fetchall()
    connection.executemany(sql, parameters)
    return ()


class _Compiler(SQLiteCompiler):
    """Writes the values that stand in a statement into its text: a partial index is only used for those."""

    def visit_bindparam(self, bindparam: BindParameter[Any], *args: Any, **options: Any) -> str:
        options["literal_binds"] = not bindparam.required
        sql = super().visit_bindparam(bindparam, *args, **options)  # type: ignore[no-untyped-call]
        return str(sql)

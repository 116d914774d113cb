"""SQLite: one writer thread with group commit, readers beside it on connections of their own.

All units that wait when the writer is free share one transaction and one fsync, each inside a SAVEPOINT
of its own, so that an error takes back only its own unit. Nobody gets a result before the commit.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from zene.domain.errors import SetupError, Unavailable
from zene.store.base import P, Query, Rows, Statement, T, Unit
from zene.store.schema import REVISION

GROUP = 256  # units that share a commit
WAITING = 8192  # units that may wait for the writer
READERS = 2
BUSY_SECONDS = 5.0
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 10000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
)
_DIALECT = SQLiteDialect_pysqlite(paramstyle="named")


class SqliteStore:
    """Implements `store.base.Store` for `sqlite:///` and a file's path."""

    def __init__(self, url: str) -> None:
        self.path = Path(url.removeprefix("sqlite:///"))
        self._waiting: queue.Queue[_Work | None] = queue.Queue(WAITING)
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._closed = False

    async def migrate(self) -> None:
        """Bring the file's schema to `REVISION`; an existing file is copied first."""
        await asyncio.to_thread(self._migrate)

    async def write(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit in the next group; returns after its commit."""
        if self._closed:
            raise Unavailable("The store is closed.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        work = _Work(lambda: unit(*args, **kwargs), answer, loop)
        if self._writer is None:
            self._start_writer()
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            raise Unavailable("Too much waits to be written; try again.", retry_after=1) from None
        return await answer

    async def read(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit on a snapshot, beside the writer."""
        if self._closed:
            raise Unavailable("The store is closed.")
        if self._readers is None:
            self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, lambda: unit(*args, **kwargs))

    async def close(self) -> None:
        """Write what waits, then close every connection."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await asyncio.to_thread(self._waiting.put, None)
            await asyncio.to_thread(self._writer.join)
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
        for connection in self._opened:
            connection.close()

    def _start_writer(self) -> None:
        self._writer = threading.Thread(target=self._write_groups, name="store-writer", daemon=True)
        self._writer.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        self._opened.append(connection)
        return connection

    def _read(self, begin: Callable[[], Unit[T]]) -> T:
        with _translated():
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            try:
                return _drive(connection, begin())
            finally:
                connection.execute("ROLLBACK")

    def _write_groups(self) -> None:
        connection: sqlite3.Connection | None = None
        while (first := self._waiting.get()) is not None:
            group = [first, *self._take_waiting()]
            try:
                with _translated():
                    connection = connection or self._connect()
                    outcomes = _run_group(connection, group)
            except Exception as err:  # noqa: BLE001 - the writer's edge: the group fails, the thread lives
                outcomes = [_Failed(err)] * len(group)
                _roll_back(connection)
            _deliver(group, outcomes)

    def _take_waiting(self) -> Iterator["_Work"]:
        for _ in range(min(self._waiting.qsize(), GROUP - 1)):
            work = self._waiting.get_nowait()
            if work is None:
                self._waiting.put(None)
                return
            yield work

    def _migrate(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _translated():
            found = self._revision()
            if found == REVISION:
                return
            if found is not None:
                self._copy_before(found)
            from zene.store.migrations import upgrade  # noqa: PLC0415 - 0.3 s that few starts need

            upgrade(f"sqlite:///{self.path}", found)

    def _revision(self) -> str | None:
        connection = self._connect()
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as err:
            if "no such table" not in str(err):
                raise
            return None
        return row[0] if row else None

    def _copy_before(self, revision: str) -> None:
        copy = sqlite3.connect(self.path.with_suffix(f".db.before-{revision}"))
        try:
            self._opened[-1].backup(copy)
        finally:
            copy.close()


class _Work(NamedTuple):
    begin: Callable[[], Unit[Any]]
    answer: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class _Failed(NamedTuple):
    error: Exception


def _run_group(connection: sqlite3.Connection, group: list[_Work]) -> list[Any]:
    """Run the units in one transaction; each one's result, or `_Failed`."""
    connection.execute("BEGIN IMMEDIATE")
    if len(group) == 1:
        result = _drive(connection, group[0].begin())
        connection.execute("COMMIT")
        return [result]
    outcomes = [_run_one(connection, work) for work in group]
    connection.execute("COMMIT")
    return outcomes


def _run_one(connection: sqlite3.Connection, work: _Work) -> Any:
    connection.execute("SAVEPOINT unit")
    try:
        result = _drive(connection, work.begin())
    except sqlite3.OperationalError:
        raise  # a full disk, an I/O error: the whole transaction is gone
    except Exception as err:  # noqa: BLE001 - a unit's error is its caller's
        connection.execute("ROLLBACK TO unit")
        result = _Failed(err)
    connection.execute("RELEASE unit")
    return result


def _drive(connection: sqlite3.Connection, unit: Unit[T]) -> T:
    try:
        rows = _execute(connection, next(unit))
        while True:
            rows = _execute(connection, unit.send(rows))
    except StopIteration as end:
        result: T = end.value
        return result


def _execute(connection: sqlite3.Connection, query: Query) -> Rows:
    statement, parameters = query
    compiled = statement.compiled.get("sqlite") or _compile(statement)
    sql, constants = compiled
    if len(parameters) == 1:
        return connection.execute(sql, {**constants, **parameters[0]}).fetchall()
    connection.executemany(sql, [{**constants, **one} for one in parameters])
    return ()


def _compile(statement: Statement) -> tuple[str, dict[str, Any]]:
    compiled = statement.expression.compile(
        dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
    )
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    statement.compiled["sqlite"] = str(compiled), constants
    return str(compiled), constants


def _deliver(group: list[_Work], outcomes: list[Any]) -> None:
    for loop in {work.loop for work in group}:
        mine = [(w.answer, o) for w, o in zip(group, outcomes, strict=True) if w.loop is loop]
        try:
            loop.call_soon_threadsafe(_answer, mine)
        except RuntimeError:
            continue  # its loop has ended, and whoever waited with it


def _answer(outcomes: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for answer, outcome in outcomes:
        if answer.done():
            continue
        if isinstance(outcome, _Failed):
            answer.set_exception(outcome.error)
        else:
            answer.set_result(outcome)


def _roll_back(connection: sqlite3.Connection | None) -> None:
    if connection is not None and connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as Zene's."""
    try:
        yield
    except sqlite3.OperationalError as err:
        raise Unavailable(f"The database does not answer: {err}.", retry_after=2) from err
    except sqlite3.DatabaseError as err:
        if isinstance(err, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        raise SetupError(f"The database file cannot be used: {err}.") from err

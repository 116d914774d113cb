"""SQLite: the store of an installation on one machine, in one file beside its write-ahead log."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from zene.domain.errors import Unavailable
from zene.store.base import P, T, Unit
from zene.store.connections import connect, definitions, translated
from zene.store.group_commit import GROUP, READERS, Threads, Work, read, write
from zene.store.revisions import check_revision
from zene.store.schema import REVISION


class SqliteStore:
    """Implements `store.base.Store` for `sqlite:///` and a file's path."""

    def __init__(self, url: str) -> None:
        self.path = Path(url.removeprefix("sqlite:///"))
        self._writer = Threads(self.path, write, threads=1, group=GROUP)
        self._readers = Threads(self.path, read, threads=READERS, group=1)
        self._closed = False

    async def migrate(self) -> None:
        """Bring the file's schema to `REVISION`; an existing one is copied first, as `*.before-<revision>`."""
        await asyncio.to_thread(self._migrate)

    async def check(self) -> None:
        """Look at the file's schema, without a change."""
        check_revision(await asyncio.to_thread(self._found))

    async def write(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit in the next group; returns after its commit."""
        return await self._run(self._writer, partial(unit, *args, **kwargs))

    async def write_together(
        self, _apart: str, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit in the next group, as all are."""
        return await self.write(unit, *args, **kwargs)

    async def read(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit on a snapshot, beside the writer."""
        return await self._run(self._readers, partial(unit, *args, **kwargs))

    async def unblock(self) -> None:
        """Nothing: a lock of SQLite's is the process's that holds it."""

    async def close(self) -> None:
        """Write what waits, then close every connection; the writer's last, which folds the log in."""
        self._closed = True
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._writer.close)

    async def _run(self, threads: Threads, begin: Callable[[], Unit[T]]) -> T:
        if self._closed:
            raise Unavailable("The store is closed.")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        threads.submit(Work(begin, answer))
        return await answer

    def _found(self) -> str | None:
        if not self.path.exists():
            return None
        try:
            with closing(connect(self.path)) as connection:
                return _revision(connection)
        except (sqlite3.Error, OSError) as err:
            raise translated(err) from err

    def _migrate(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(connect(self.path)) as connection:
                found = _revision(connection)
                if found is None:
                    create_tables(connection)
                elif found != REVISION:
                    self._upgrade(connection, found)
        except (sqlite3.Error, OSError) as err:
            raise translated(err) from err

    def _upgrade(self, connection: sqlite3.Connection, found: str) -> None:
        from zene.store import migrations  # noqa: PLC0415 - 0.2 s and 12 MB that few starts need

        migrations.check_known(found)
        copy_database(connection, self.path.with_name(f"{self.path.name}.before-{REVISION}"))
        migrations.upgrade(f"sqlite:///{self.path}")


def create_tables(connection: sqlite3.Connection) -> None:
    """Make a new database as all migrations together would (a test compares), whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    if _revision(connection) is None:
        for definition in definitions():
            connection.execute(definition)
        connection.execute(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
            " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
        connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))
    connection.execute("COMMIT")


def copy_database(connection: sqlite3.Connection, path: Path) -> None:
    """Write what the database holds now, its write-ahead log included, to a file of its own."""
    with closing(connect(path)) as copy:
        connection.backup(copy)


def _revision(connection: sqlite3.Connection) -> str | None:
    """The revision of the schema; None where there is none yet."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
    if not found.fetchall():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None

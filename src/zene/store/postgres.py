"""PostgreSQL: the store that many gateways and workers share. A unit is one transaction at READ COMMITTED, or a
part of one.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import text

from zene.domain.errors import SetupError, Unavailable
from zene.store.base import P, Rows, Statement, T, Unit
from zene.store.lanes import Lanes
from zene.store.numbered import definitions
from zene.store.outages import REFUSED, translated
from zene.store.revisions import check_revision
from zene.store.schema import REVISION
from zene.store.together import MOST
from zene.store.transactions import Reading, Together, write

if TYPE_CHECKING:
    from asyncpg import Connection

WRITERS = 8  # connections of one process
TOGETHER = 2
READERS = 4
_CONNECT_SECONDS = 2.0
_STATEMENTS = 512  # prepared ones that a connection keeps
_LIMITS = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "2000",
    "lock_timeout": "1500",
    "idle_in_transaction_session_timeout": "5000",
}
# A client that stands still between the parts of a statement, or does not read its answer: the server takes it
# for busy, so none of the limits above ends it, nor its locks.
_END_STALLED = Statement(
    text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND usename = current_user AND application_name = 'zene' AND state = 'active'"
        " AND wait_event_type = 'Client' AND backend_xid IS NOT NULL"
        " AND state_change < clock_timestamp() - interval '5 seconds'"
    )
)
_ONLY_READS = {"default_transaction_read_only": "on"}
_MIGRATION_LOCK = 0x7A656E65  # "zene"
_MIGRATION_LIMITS = {"statement_timeout": "0", "lock_timeout": "10000"}


class PostgresStore:
    """Implements `store.base.Store` for `postgresql://user:password@host/database`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._migrator = partial(_connect, url, _MIGRATION_LIMITS)
        writer = partial(_connect, url, _LIMITS)
        self._writers = Lanes(writer, write, WRITERS)
        self._together = Lanes(writer, Together(self._writers.take), TOGETHER, most=MOST)
        self._readers = Lanes(partial(_connect, url, _LIMITS | _ONLY_READS), Reading(), READERS)
        self._closed = False

    async def migrate(self) -> None:
        """Bring the schema to `REVISION`; who migrates at the same time waits."""
        async with _setting_up(self._migrator) as connection:
            found = await _revision(connection)
            if found is None:
                await create_tables(connection)
        if found not in (None, REVISION):
            await self._upgrade(str(found))

    async def check(self) -> None:
        """Look at the schema's revision, without a change."""
        async with _setting_up(self._migrator) as connection:
            check_revision(await _revision(connection))

    async def write(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit in a transaction of its own; returns after its commit."""
        return await self._run(self._writers, partial(unit, *args, **kwargs))

    async def write_together(
        self, apart: str, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit with those that wait at the same time; one that would keep them waiting, by itself."""
        return await self._run(self._together, partial(unit, *args, **kwargs), apart)

    async def read(self, unit: Callable[P, Unit[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit on a snapshot."""
        return await self._run(self._readers, partial(unit, *args, **kwargs))

    async def unblock(self) -> None:
        """End transactions that hold locks and whose client has not gone on for 5 s."""
        await self._run(self._readers, _end_stalled)

    async def close(self) -> None:
        """Finish what waits, then let every connection go."""
        self._closed = True
        await self._readers.close()
        await self._together.close()  # before those that it hands on to
        await self._writers.close()

    async def _run(self, lanes: Lanes, begin: Callable[[], Unit[T]], apart: str = "") -> T:
        if self._closed:
            raise Unavailable("The store is closed.")
        return await lanes.run(begin, apart)

    async def _upgrade(self, found: str) -> None:
        from zene.store import migrations  # noqa: PLC0415 - 0.2 s and 12 MB that few starts need

        migrations.check_known(found)
        try:
            await migrations.upgrade_postgres(self._migrator, _MIGRATION_LOCK)
        except Exception as err:
            raise translated(err) from err


def _end_stalled() -> Unit[Rows]:
    return (yield _END_STALLED())


async def create_tables(connection: "Connection[Any]") -> None:
    """Make a new schema as all migrations together would (a test compares)."""
    for definition in definitions():
        await connection.execute(definition)
    await connection.execute(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    await connection.execute("INSERT INTO alembic_version VALUES ($1)", REVISION)


@asynccontextmanager
async def _setting_up(
    connect: Callable[[], Awaitable["Connection[Any]"]],
) -> AsyncIterator["Connection[Any]"]:
    """One transaction beside which nobody else migrates, with wrong settings told as such."""
    try:
        connection = await connect()
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
                yield connection
        finally:
            connection.terminate()
    except REFUSED as err:
        raise SetupError(
            f"The database server refuses us: {err}. Correct ZENE_STORE, or make that database or user."
        ) from err
    except (ValueError, OverflowError, asyncpg.UndefinedObjectError) as err:
        raise SetupError(
            f"ZENE_STORE cannot be used: {err}. It is postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        ) from err
    except OSError as err:
        raise Unavailable(
            f"The database does not answer: {str(err) or type(err).__name__}. Start it, or correct ZENE_STORE.",
            retry_after=2,
        ) from err
    except Exception as err:
        raise translated(err) from err


async def _connect(url: str, limits: Mapping[str, str]) -> "Connection[Any]":
    """Raises ValueError for a port that is none, which the driver would make another of."""
    _ = urlsplit(url).port
    settings = {
        "application_name": "zene",
        "jit": "off",
        # Every statement has its index. Plans are made once, also while there is next to nothing in a table.
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        **limits,
    }
    return await asyncpg.connect(
        url,
        timeout=_CONNECT_SECONDS,
        statement_cache_size=_STATEMENTS,
        max_cacheable_statement_size=0,
        max_cached_statement_lifetime=0,
        server_settings=settings,
    )


async def _revision(connection: "Connection[Any]") -> str | None:
    """The revision of the schema; None where there is none yet."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found = await connection.fetchval("SELECT version_num FROM alembic_version")
    return None if found is None else str(found)

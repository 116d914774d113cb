"""Changes of the schema from release to release, run by Alembic."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from zene.domain.errors import SetupError


def check_known(found: str) -> None:
    """Raises SetupError where the schema is of a release that is newer than this one."""
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
    if found not in known:
        raise SetupError(
            f"The database has schema {found}, and this release knows none after {known[0]}. "
            "Start the release that made it, or a newer one."
        )


def upgrade(url: str, to: str = "head") -> None:
    """Bring the schema at `url` to a revision, by default the newest, whole or not at all. Raises the driver's errors."""
    config = _config()
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _upgrade(connection, config, to)
    except DBAPIError as err:
        raise err.orig or err from err


async def upgrade_postgres(
    connect: Callable[[], Awaitable[Any]], lock: int, to: str = "head"
) -> None:
    """Bring the schema that `connect` reaches to a revision, by default the newest, whole or not at all, while
    holding the advisory lock of that number. Raises the driver's errors.
    """
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - of no use to SQLite

    from zene.store.numbered import Types  # noqa: PLC0415

    config = _config()
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    engine.dialect.type_compiler_instance = Types(engine.dialect)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")
            await connection.run_sync(_upgrade, config, to)
    except DBAPIError as err:
        cause = err.orig.__cause__ if err.orig else None  # theirs wraps asyncpg's
        raise cause or err.orig or err from err


def _upgrade(connection: Connection, config: Config, to: str) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _leave_transactions_to_us(connection: sqlite3.Connection, _: object) -> None:
    """Python's driver commits before each CREATE TABLE, unless it is told to begin and commit nothing."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config

"""Changes of the schema from release to release, run by Alembic."""

import sqlite3
from pathlib import Path

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


def upgrade(url: str) -> None:
    """Bring the schema at `url` to the newest revision, whole or not at all. Raises the driver's errors."""
    config = _config()
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as err:
        raise err.orig or err from err


def _leave_transactions_to_us(connection: sqlite3.Connection, _: object) -> None:
    """Python's driver commits before each CREATE TABLE, unless it is told to begin and commit nothing."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config

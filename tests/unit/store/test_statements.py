"""Statements: each compiles for every dialect, and finds its rows by an index."""

import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql.asyncpg import dialect as postgresql

import zene.store
from zene.store import migrations
from zene.store.base import Statement
from zene.store.columns import metadata
from zene.store.connections import compiled, connect
from zene.store.schema import REVISION
from zene.store.sqlite import create_tables

GATHERS = ("CO-ROUTINE", "MATERIALIZE")  # rows that a statement makes first and then goes through
# These look at every row of a table or an index on purpose, or at one that stays small: of the leased tasks no
# more than there are slots, of those that wait for tokens no more than wait.
WHOLE = {
    "census._COUNT", "census._LEASES", "claims._ALL_LEASED", "claims._LEASED_TO",
    "copying._SETTLE_ANYWHERE", "credentials._LIST_KEYS", "jobs._TAKE_OVER", "jobs._TAKE_OVER_FROM", "queue._UNMARKED",
    "sessions._ALL", "sessions._ALL_PROJECTS", "users._CREATE_FIRST", "users._COUNT",
    "users._LOCK_INSTALLATION", "shortage._PROMISED", "shortage._USERS",
}  # fmt: skip


def statements() -> Iterator[tuple[str, Statement]]:
    """Every statement of every subject, by name; not what PostgreSQL alone is asked."""
    for module in pkgutil.iter_modules(zene.store.__path__):
        if module.name == "postgres":
            continue
        loaded = importlib.import_module(f"zene.store.{module.name}")
        for name, value in vars(loaded).items():
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Statement):
                    yield f"{module.name}.{name}", each


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """An empty database as migrations make it."""
    path = tmp_path_factory.mktemp("store") / "zene.db"
    migrations.upgrade(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


@pytest.mark.parametrize(("name", "statement"), list(statements()))
def test_a_statement_compiles_for_postgresql_too(name: str, statement: Statement) -> None:
    dialect = postgresql()  # type: ignore[no-untyped-call]  # theirs has no types
    assert str(statement.expression.compile(dialect=dialect)), name


@pytest.mark.parametrize(("name", "statement"), list(statements()))
def test_a_statement_looks_at_no_row_in_vain(
    name: str, statement: Statement, database: sqlite3.Connection
) -> None:
    sql = compiled(statement)
    values = dict.fromkeys(re.findall(r":(\w+)", sql))
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    made = {step.split()[1] for step in plan if step.startswith(GATHERS)}
    scans = [
        step
        for step in plan
        if step.startswith("SCAN") and step.split()[1] not in {*made, "CONSTANT"}  # a row of them
    ]
    assert bool(scans) == (name in WHOLE), plan


@pytest.mark.parametrize("parent", ["projects", "sessions", "tasks"])
def test_a_row_that_is_deleted_looks_for_those_that_name_it_by_an_index(
    parent: str, database: sqlite3.Connection
) -> None:
    naming = [
        (table.name, key.parent.name)
        for table in metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table.name == parent
    ]
    assert naming
    for table, column in naming:
        looking = f"EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE {column} = ?"
        [(*_, step)] = database.execute(looking, (None,))
        assert step.startswith("SEARCH"), (table, step)


def test_the_migrations_make_the_tables_that_the_statements_mean(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/zene.db"
    migrations.upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": has_plain_columns})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == REVISION
    engine.dispose()


def has_plain_columns(thing: object, *_: object) -> bool:
    """Not an index with an order, which alembic cannot read back; the next test compares those, too."""
    name = getattr(thing, "name", None)
    return name != "ix_tasks_ready"


def test_a_new_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path}/migrated.db")
    with closing(sqlite3.connect(tmp_path / "migrated.db")) as migrated:
        expected = definitions_of(migrated)
    with closing(connect(tmp_path / "new.db")) as new:
        create_tables(new)
        create_tables(new)
        assert definitions_of(new) == expected
        assert new.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]


def definitions_of(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    """Every table and index by its parts, whose order says nothing."""
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    parts = (" ".join(sql.replace("(", " ( ").split()).split(",") for (sql,) in found)
    return {tuple(sorted(part.strip(" ()") for part in each)) for each in parts}


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "zene.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE model_calls (id INTEGER)")
    connection.commit()
    with pytest.raises(sqlite3.OperationalError):
        migrations.upgrade(f"sqlite:///{path}")
    found = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert found == [("model_calls",)]
    connection.close()

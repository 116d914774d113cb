"""The schema on PostgreSQL: made, brought up to date and looked at, also by many at once."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from tests.contracts.store.world import World
from tests.postgres_server import TEMPLATE, PostgresServer
from zene.domain.errors import SetupError
from zene.store import migrations, schema, users
from zene.store.postgres import PostgresStore

ONE_BY_ONE = 7
COLUMNS = """SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
    FROM information_schema.columns WHERE table_schema = 'public'"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
CONSTRAINTS = (
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 2200"
)


@pytest.fixture
async def url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A database without a schema."""
    async with postgres.bare_database() as name:
        yield postgres.url(name)


async def migrated(url: str, to: str = "head") -> None:
    """Bring the schema to a revision by its migrations."""
    await migrations.upgrade_postgres(partial(asyncpg.connect, url), ONE_BY_ONE, to)


async def asked(url: str, sql: str) -> list[str]:
    """What a statement finds, in some order of its own."""
    connection = await asyncpg.connect(url)
    try:
        return sorted(repr(row) for row in await connection.fetch(sql))
    finally:
        await connection.close()


@pytest.mark.parametrize("looked_at", [COLUMNS, INDEXES, CONSTRAINTS])
async def test_a_new_database_is_what_the_migrations_make(
    postgres: PostgresServer, url: str, looked_at: str
) -> None:
    await migrated(url)
    made = await asked(url, looked_at)
    assert made == await asked(postgres.url(TEMPLATE), looked_at)
    assert made


async def test_text_sorts_by_its_bytes_whatever_the_databases_language(url: str) -> None:
    await migrated(url)
    found = await asked(url, f"{COLUMNS} AND data_type = 'text'")
    assert found
    assert [column for column in found if "collation_name='C'" not in column] == []


async def test_many_who_migrate_at_once_make_one_schema(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(store.migrate() for store in stores))
    for store in stores:
        await store.check()
        await store.close()


async def test_many_who_migrate_at_once_upgrade_once(url: str) -> None:
    await migrated(url, "0001")
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(store.migrate() for store in stores))
    for store in stores:
        await store.check()
        await store.close()


async def test_what_is_there_outlives_an_upgrade(url: str) -> None:
    await migrated(url, "0001")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO users (id, email, password_hash, role, created_at)"
        " VALUES ('usr_1', 'a@example.org', 'hash', 'admin', 1)"
    )
    await connection.close()
    store = PostgresStore(url)
    await store.migrate()
    world = World(store)
    await world.submit(await world.session(await store.read(users.get_user, "usr_1")))
    assert len(await world.claim()) == 1
    await store.close()


async def test_a_schema_that_is_not_this_releases_is_refused_with_what_to_do(url: str) -> None:
    store = PostgresStore(url)
    with pytest.raises(SetupError, match=r"no schema yet.*zene migrate"):
        await store.check()
    await migrated(url, "0001")
    with pytest.raises(SetupError, match=rf"0001.*{schema.REVISION}.*zene migrate"):
        await store.check()
    await store.migrate()
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = '0999'")
    await connection.close()
    for look in (store.check, store.migrate):
        with pytest.raises(SetupError, match=rf"0999.*{schema.REVISION}"):
            await look()
    await store.close()


async def test_a_server_that_does_not_know_us_is_a_setting_to_mend(
    postgres: PostgresServer,
) -> None:
    store = PostgresStore(postgres.url("nowhere"))
    with pytest.raises(SetupError, match='"nowhere" does not exist'):
        await store.check()
    await store.close()

"""Every backend of the store, migrated and empty. A backend is added here and passes the suite unchanged."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from tests.postgres_server import PostgresServer
from zene.store.base import Store
from zene.store.postgres import PostgresStore
from zene.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """The server that the backend needs; None for a file."""
    if request.param == "sqlite":
        return None
    found: PostgresServer = request.getfixturevalue("postgres")
    return found


@pytest.fixture
async def store(server: PostgresServer | None, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of its own for each test."""
    if server is None:
        file = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
        await file.migrate()
        yield file
        await file.close()
    else:
        async with server.database() as name:
            opened = PostgresStore(server.url(name))
            yield opened
            await opened.close()


@pytest.fixture
def world(store: Store) -> World:
    """What happens in an installation, on a clock that only the test moves."""
    return World(store)

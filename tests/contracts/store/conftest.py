"""Every backend of the store, migrated and empty. A backend is added here and passes the suite unchanged."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from zene.store.base import Store
from zene.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of its own for each test."""
    opened = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
def world(store: Store) -> World:
    """What happens in an installation, on a clock that only the test moves."""
    return World(store)

"""A server whose default model is played by the tests, for whoever wants one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.model_server import ModelServer
from tests.servers import Zene, a_free_port, served_by


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer({}) as server:
        yield server


@pytest.fixture
async def zene(tmp_path: Path, model: ModelServer) -> AsyncIterator[Zene]:
    async with Zene(tmp_path, served_by(model), a_free_port()) as person:
        await person.up()
        yield person

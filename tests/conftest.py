"""What holds for every test: no skips in CI, and no coroutine outlives the test that started it."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from tests.postgres_server import PostgresServer, postgres_server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI every backend can run, so a test that is skipped there has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and "CI" in os.environ:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, once for all tests that need one."""
    with postgres_server() as server:
        yield server


@pytest.fixture(autouse=True)
def check_leftovers(request: pytest.FixtureRequest) -> None:
    """Ask for the check of coroutines where there is a loop; it is made after all other fixtures are gone."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_coroutine_is_left")


@pytest.fixture
async def no_coroutine_is_left() -> AsyncIterator[None]:
    """Fail where an asyncio task that the test or its fixtures started is still there afterwards."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)  # what was cancelled last may need one turn of the loop to end
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"still running after the test: {sorted(map(repr, left))}"

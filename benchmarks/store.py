"""What the store costs: `python -m benchmarks.store [sqlite] [postgres]`. Events a second in batches, CPU a unit.

The files are on the disk that TMPDIR names; PostgreSQL is a server of the benchmark's own, with fsync on.
CPU is this process's, all threads; medians of the rounds.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from tests.postgres_server import TEMPLATE, postgres_server
from zene.domain.events import Draft, SandboxState
from zene.domain.users import Role
from zene.store import log, sessions, users
from zene.store.base import Store, Unit
from zene.store.postgres import PostgresStore
from zene.store.sqlite import SqliteStore

ROUNDS = 5
NOW = 1_800_000_000_000
STATE = Draft(body=SandboxState(state="started", ms=1), task_id="tsk_1", step=1, item_id="itm_1")


@contextmanager
def a_file() -> Iterator[Store]:
    """SQLite, as `zene up` has it."""
    with tempfile.TemporaryDirectory() as folder:
        yield SqliteStore(f"sqlite:///{Path(folder)}/zene.db")


@contextmanager
def a_server() -> Iterator[Store]:
    """PostgreSQL on this machine."""
    with postgres_server() as server:
        yield PostgresStore(server.url(TEMPLATE))


PLACES = {"sqlite": a_file, "postgres": a_server}


async def main(store: Store) -> None:
    """Print one line a figure."""
    await store.migrate()
    await store.write(prepare)
    await show("events/s, batches of 100, 8 at once", 20_000, lambda: batches(store, 25))
    await show("units/s, one event each, 64 at once", 6_400, lambda: singles(store, 64, 100))
    await show("units/s, one event each, one by one", 400, lambda: singles(store, 1, 400))
    await show("reads/s, one session, one by one", 2_000, lambda: reads(store, 2_000))
    await store.close()


def prepare() -> Unit[None]:
    """A user with sixty-four sessions."""
    yield from users.create_user("usr_1", "a@example.org", "hash", Role.MEMBER, NOW)
    for number in range(64):
        yield from sessions.create_session(
            id=f"ses_{number}",
            user_id="usr_1",
            project_id=None,
            title="",
            model="demo:",
            effort=None,
            approval_policy="auto",
            now=NOW,
        )


async def batches(store: Store, times: int) -> None:
    """Eight workers append a hundred events at a time."""

    async def worker(number: int) -> None:
        for _ in range(times):
            await store.write(log.append, f"ses_{number}", [STATE] * 100, NOW)

    await asyncio.gather(*map(worker, range(8)))


async def singles(store: Store, at_once: int, times: int) -> None:
    """Units of three statements: hold the session, move its head, insert an event."""

    async def worker(number: int) -> None:
        for _ in range(times):
            await store.write(log.append, f"ses_{number}", [STATE], NOW)

    await asyncio.gather(*map(worker, range(at_once)))


async def reads(store: Store, times: int) -> None:
    """One session's row with its derived status."""
    for _ in range(times):
        await store.read(sessions.get_session, "usr_1", "ses_1")


async def show(name: str, count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Rate and CPU a piece."""
    rate, cost = await measured(count, work)
    print(f"{name:40} {rate:9.0f}/s {cost * 1e6:7.1f} µs CPU each")


async def measured(
    count: int, work: Callable[[], Awaitable[None]], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Pieces a second and seconds of CPU for one, medians of the rounds."""
    rates, costs = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        rates.append(count / (time.perf_counter() - wall))
        costs.append((time.process_time() - cpu) / count)
    return statistics.median(rates), statistics.median(costs)


if __name__ == "__main__":
    for name in sys.argv[1:] or PLACES:
        print(name)
        with PLACES[name]() as opened:
            uvloop.run(main(opened))

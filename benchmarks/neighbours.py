"""What others notice while one session is stuck: in a tool, in a large upload, at its own locked row.

`python -m benchmarks.neighbours`: gateway, worker, PostgreSQL and Redis as processes of their own. For each
case the medians of a start (submit answered → `task.started` seen) and of an append (a session renamed), and
their ratios to the same run's idle medians, which are taken before and after it. They must stay ≤ 1.3.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg
import uvloop
from msgspec import Struct

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.postgres_server import PostgresServer, postgres_server
from tests.redis_server import redis_server
from tests.servers import served_by
from tests.unit.workspaces.archives import archive
from zene.client import AsyncClient

STUCK_SECONDS = 10
UPLOAD_BYTES = 64 << 20
SLEEPS = Call(name="shell", arguments={"command": f"sleep {STUCK_SECONDS + 20}"})


class Medians(Struct, frozen=True):
    """Seconds."""

    start: float
    append: float


class Place(Struct, frozen=True):
    """Where it happens."""

    client: AsyncClient
    folder: Path
    database_url: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=40, help="starts and appends of each median")
    options = parser.parse_args()
    with postgres_server() as postgres, tempfile.TemporaryDirectory(prefix="zene-bench-") as name:
        for line in uvloop.run(_measured(Path(name), postgres, options.n)):
            print(line)


async def _measured(folder: Path, postgres: PostgresServer, n: int) -> list[str]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer({"*": _script()}))
        redis = await stack.enter_async_context(redis_server(folder))
        database = await stack.enter_async_context(postgres.bare_database())
        url = postgres.url(database)
        variables = served_by(model, ZENE_BUS=redis.url, ZENE_STORE=url)
        many = await stack.enter_async_context(Many(folder, variables))
        await many.make(gateways=1, workers=1)
        where = Place(await many.client(), folder, url)
        await _medians(where, n)
        lines = [f"n = {n} of each, medians in ms: start, append (ratio to idle)"]
        for name, stuck in CASES.items():
            before = await _medians(where, n)
            async with stuck(where):
                while_stuck = await _medians(where, n)
            after = await _medians(where, n)
            lines.append(_line(name, while_stuck, before, after))
        return lines


def _line(name: str, stuck: Medians, before: Medians, after: Medians) -> str:
    told = []
    for one in ("start", "append"):
        idle = (getattr(before, one) + getattr(after, one)) / 2
        value = getattr(stuck, one)
        told.append(f"{value * 1000:.2f} ({value / idle:.2f}×)")
    return f"{name}: {', '.join(told)}"


async def _medians(where: Place, n: int) -> Medians:
    """Of sessions that have nothing to do with what is stuck."""
    client = where.client
    starts, appends = [], []
    for number in range(n):
        session = await client.create_session()
        async with aclosing(client.follow(session.id)) as events:
            await anext(events)
            began = perf_counter()
            await client.change_session(session.id, title=f"Number {number}")
            appends.append(perf_counter() - began)
            await client.submit(session.id, "Go.")
            began = perf_counter()
            async for event in events:
                if event.type == "task.started":
                    starts.append(perf_counter() - began)
                if event.type == "task.finished":
                    break
    return Medians(median(starts), median(appends))


@asynccontextmanager
async def _in_a_tool(where: Place) -> AsyncIterator[None]:
    session = await where.client.create_session()
    task = await where.client.submit(session.id, "Sleep.")
    async with aclosing(where.client.follow(session.id)) as events:
        async for event in events:
            if event.type == "item.started" and b'"shell"' in bytes(event.data):
                break
    yield
    await where.client.cancel(task.id)


@asynccontextmanager
async def _in_an_upload(where: Place) -> AsyncIterator[None]:
    project = await where.client.create_project("Large")
    packed = where.folder / "large.tar.gz"
    content = archive({"large.bin": os.urandom(UPLOAD_BYTES)})
    await asyncio.to_thread(packed.write_bytes, content)
    uploading = asyncio.create_task(where.client.upload(project.id, packed))
    yield
    await uploading


@asynccontextmanager
async def _at_its_row(where: Place) -> AsyncIterator[None]:
    session = await where.client.create_session()
    connection = await asyncpg.connect(where.database_url)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", session.id)
        waiting = asyncio.create_task(where.client.change_session(session.id, title="Later"))
        yield
    await asyncio.gather(waiting, return_exceptions=True)
    await connection.close()


CASES: dict[str, Callable[[Place], AbstractAsyncContextManager[None]]] = {
    "in a tool": _in_a_tool,
    "in an upload of 64 MiB": _in_an_upload,
    "at its own locked row": _at_its_row,
}


def _script() -> Script:
    done = Answer(text="Done.")
    return Script(answers=[done], answers_to={"Sleep": [Answer(calls=[SLEEPS]), done]})


if __name__ == "__main__":
    main()

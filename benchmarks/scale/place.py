"""A whole installation to be measured: PostgreSQL, Redis, and processes of Zene's own over both.

People and their sessions are made by the store's own units; everything after that goes over HTTP.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from argon2 import PasswordHasher
from msgspec import Struct

from benchmarks.processes import Child
from tests.many import Many, Process
from tests.planted import PASSWORD
from tests.postgres_server import PostgresServer, postgres_server
from tests.redis_server import RedisServer, redis_server
from zene.client import AsyncClient
from zene.domain.ids import RANDOM_BYTES, make_id
from zene.domain.users import Role
from zene.store import sessions, users
from zene.store.base import Store
from zene.store.postgres import PostgresStore

# What a stored hash costs is in the hash: these are checked in a millisecond.
_HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
_AT_ONCE = 64
_SECONDS = 120.0


class Person(Struct, frozen=True):
    """A user and their sessions."""

    id: str
    email: str
    sessions: Sequence[str]


class Place(Struct, frozen=True, kw_only=True):
    """The installation; `many` starts its processes, `store` is this process's own way in."""

    many: Many
    store: Store
    redis: RedisServer
    postgres: PostgresServer
    database: str

    async def ask(self, sql: str, *values: object) -> list[Any]:
        """A statement over a connection of its own: a witness that shares nothing with Zene."""
        connection = await asyncpg.connect(self.postgres.url(self.database), timeout=_SECONDS)
        try:
            rows: list[Any] = await connection.fetch(sql, *values, timeout=_SECONDS)
            return rows
        finally:
            await connection.close()

    async def postmaster(self) -> Child:
        """PostgreSQL's processes, to be measured."""
        [[backend]] = await self.ask("SELECT pg_backend_pid()")
        [[data]] = await self.ask("SELECT current_setting('data_directory')")
        del backend
        first = await asyncio.to_thread(Path(data, "postmaster.pid").read_text)
        return watched(int(first.split()[0]))


@asynccontextmanager
async def place(folder: Path, model_url: str) -> AsyncGenerator[Place, None]:
    """An installation with nobody in it but its administrator, and no process running."""
    await asyncio.to_thread(folder.mkdir)
    with postgres_server("track_commit_timestamp=on", "shared_buffers=256MB") as server:
        async with server.bare_database() as name, redis_server(folder) as redis:
            variables = {
                "ZENE_MODEL": "openai:gpt-4.1",
                "OPENAI_BASE_URL": f"{model_url}/v1",
                "OPENAI_API_KEY": secrets.token_hex(16),
                "ZENE_ALLOW_WEAK_SANDBOX": "true",
                "ZENE_BUS": redis.url,
                "ZENE_STORE": server.url(name),
                "ZENE_LEASE_SECONDS": "5",
            }
            async with Many(folder, variables) as many:
                await many.make(gateways=0, workers=0)
                store = PostgresStore(server.url(name))
                try:
                    yield Place(many=many, store=store, redis=redis, postgres=server, database=name)
                finally:
                    await store.close()


def watched(pid: int) -> Child:
    """A process that something else has started, to be measured."""
    return Child(pid=pid, port=0, ready_seconds=0, group=None)


def process(of: Process) -> Child:
    """A gateway or a worker, to be measured."""
    return watched(of.program.process.pid)


async def people(store: Store, count: int, each: int) -> list[Person]:
    """So many users with so many empty sessions each."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Person:
        person = Person(
            id=new_id("usr"),
            email=f"p{number}.{secrets.token_hex(4)}@example.org",
            sessions=[new_id("ses") for _ in range(each)],
        )
        async with limit:
            now = now_ms()
            await store.write(users.create_user, person.id, person.email, _HASH, Role.MEMBER, now)
            for session_id in person.sessions:
                await store.write(
                    sessions.create_session,
                    id=session_id,
                    user_id=person.id,
                    project_id=None,
                    title="",
                    model="openai:gpt-4.1",
                    effort=None,
                    approval_policy="auto",
                    now=now,
                )
        return person

    return await asyncio.gather(*map(one, range(count)))


async def token(url: str, person: Person) -> str:
    """What the person's requests are sent with."""
    async with AsyncClient(url) as client:
        return (await client.login(person.email, PASSWORD)).access_token


class Line:
    """A connection over which one request follows the other, read with as little as can be."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token_: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._head = f"host: 127.0.0.1\r\nauthorization: Bearer {token_}\r\n"

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes, float]:
        """Status, body, and when the last byte was there by the wall's clock."""
        content = b"" if body is None else json.dumps(body).encode()
        kind = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind if content else ''}\r\n"
        self._writer.write(head.encode() + content)
        async with asyncio.timeout(_SECONDS):
            answered = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            size = int(answered.partition(b"content-length:")[2].partition(b"\r\n")[0])
            found = await self._reader.readexactly(size)
        return int(answered.split(None, 2)[1]), found, time.time()

    async def follow(self, session_id: str, word: bytes = b"session.created") -> None:
        """Ask for a session's stream, and read it up to the frame with this."""
        path = f"/v1/sessions/{session_id}/stream"
        self._writer.write(
            f"GET {path} HTTP/1.1\r\n{self._head}accept: text/event-stream\r\n\r\n".encode()
        )
        await self.until(word)

    async def until(self, word: bytes) -> float:
        """Read the stream up to the frame with this; when it was there by the wall's clock."""
        async with asyncio.timeout(_SECONDS):
            while word not in await self._reader.readuntil(b"\n\n"):
                pass
        return time.time()

    def close(self) -> None:
        """Let the connection go."""
        self._writer.transport.abort()


async def line(url: str, token_: str) -> Line:
    """A connection to a gateway."""
    port = int(url.rpartition(":")[2])
    return Line(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26), token_)


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id(prefix: str) -> str:
    """A new id of that prefix."""
    return make_id(prefix, now_ms(), os.urandom(RANDOM_BYTES))

"""A real PostgreSQL of the tests' own: a cluster in a temporary folder, on a free port, with fsync on.

Never the machine's own service. Its programs refuse to be root and run as `nobody` then.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Any

import asyncpg
import pytest

from tests.servers import a_free_port
from zene.store.columns import metadata
from zene.store.postgres import PostgresStore

SECONDS = 30
OPTIONS = ("max_connections=200", "shared_buffers=32MB")
TEMPLATE = "zene_template"
_EMPTY = "".join(f"DELETE FROM {table.name};" for table in reversed(metadata.sorted_tables))


class PostgresServer:
    """What a test may do to it; where it is stays the same across restarts."""

    def __init__(
        self, programs: Path, folder: Path, user: str | None, options: Sequence[str] = ()
    ) -> None:
        self.port = a_free_port()
        self._programs = programs
        self._folder = folder
        self._user = user
        self._options = (*OPTIONS, *options)
        self._numbers = count(1)
        self._free: list[str] = []

    def url(self, database: str, port: int | None = None) -> str:
        """Where a database is; with a port, through what listens there."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def initialise(self) -> None:
        """Make the files of an empty cluster."""
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")

    def start(self) -> None:
        """Start it; returns once it answers."""
        own = (
            *self._options,
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._folder}",
        )
        settings = " ".join(f"-c {setting}" for setting in (*own, f"port={self.port}"))
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-t", str(SECONDS), "-l", log, "-o", settings, "start")

    def stop(self, how: str = "immediate") -> None:
        """End it, as a power cut would unless `how` is another; returns once it has ended."""
        self._run("pg_ctl", "-w", "-t", str(SECONDS), "-m", how, "stop")

    def make_template(self) -> None:
        """The database that others are copies of: migrated and empty."""
        with ThreadPoolExecutor(1) as thread:  # where no loop runs, whatever runs here
            thread.submit(asyncio.run, self._make_template()).result(SECONDS)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """A migrated, empty database of a test's own, by its name; the next test gets it emptied."""
        name = self._free.pop() if self._free else await self._copy(TEMPLATE)
        yield name
        await self.ask(_EMPTY, name)
        self._free.append(name)

    @asynccontextmanager
    async def bare_database(self) -> AsyncIterator[str]:
        """A database without a schema."""
        name = await self._copy("template1")
        yield name
        await self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    async def ask(self, sql: str, database: str = "postgres") -> list[Any]:
        """A statement of the operator's."""
        connection = await asyncpg.connect(self.url(database), timeout=SECONDS)
        try:
            if ";" in sql:
                await connection.execute(sql, timeout=SECONDS)
                return []
            return await connection.fetch(sql, timeout=SECONDS)
        finally:
            await connection.close(timeout=SECONDS)

    async def _copy(self, template: str) -> str:
        name = f"zene_{next(self._numbers)}"
        await self.ask(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    async def _make_template(self) -> None:
        await self.ask(f"CREATE DATABASE {TEMPLATE}")
        store = PostgresStore(self.url(TEMPLATE))
        await store.migrate()
        await store.close()

    def _run(self, program: str, *arguments: str) -> None:
        run(
            [self._programs / program, "-D", self._folder / "data", *arguments],
            check=True, user=self._user, cwd=self._folder, stdin=DEVNULL, stdout=DEVNULL, timeout=SECONDS,
        )  # fmt: skip


@contextmanager
def postgres_server(*options: str) -> Iterator[PostgresServer]:
    """A PostgreSQL that runs, with the template."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed")
    user = None if os.geteuid() else "nobody"
    folder = Path(tempfile.mkdtemp(prefix="zene-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        server = PostgresServer(programs, folder, user, options)
        server.initialise()
        server.start()
        try:
            server.make_template()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)

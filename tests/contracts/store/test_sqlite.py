"""What only a file can do: fill its disk, outlive its process, be older or newer than the release."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.store.world import World
from zene.domain.errors import Conflict, SetupError, Unavailable
from zene.domain.events import Draft, SandboxState
from zene.domain.users import Role
from zene.store import log, migrations, schema, users
from zene.store.connections import connect
from zene.store.sqlite import SqliteStore, copy_database

STATE = Draft(body=SandboxState(state="started", ms=1))
WRITER = """
import asyncio, sys
from zene.domain.events import Draft, SandboxState
from zene.store import log
from zene.store.sqlite import SqliteStore

async def main(path, session):
    store = SqliteStore(f"sqlite:///{path}")
    async def write():
        while True:
            events = await store.write(log.append, session, [Draft(body=SandboxState(state="gone"))] * 3, 1)
            print(events[-1].seq, flush=True)
    await asyncio.gather(*(write() for _ in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return [each.name for each in folder.iterdir()]


@pytest.fixture
def server() -> None:
    """None: `world` is on a file here."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "zene-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_is_told_and_forgotten_once_there_is_room(small_disk: Path) -> None:
    store = SqliteStore(f"sqlite:///{small_disk}/zene.db")
    await store.migrate()
    world = World(store)
    session = await world.session(await world.user())
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    written = 1
    with contextlib.suppress(Unavailable):
        while True:
            written = (await store.write(log.append, session.id, [STATE] * 200, 1))[-1].seq
    with pytest.raises(Unavailable) as refused:
        await store.write(log.append, session.id, [STATE] * 200, 1)
    assert refused.value.code == "disk_full"
    assert len(await world.log(session.id)) == written
    ballast.unlink()
    assert (await store.write(log.append, session.id, [STATE], 1))[-1].seq == written + 1
    await store.close()


async def test_on_a_full_disk_every_unit_of_a_group_is_told(small_disk: Path) -> None:
    store = SqliteStore(f"sqlite:///{small_disk}/zene.db")
    await store.migrate()
    world = World(store)
    session = await world.session(await world.user())
    results = await asyncio.gather(
        *(store.write(log.append, session.id, [STATE] * 500, 1) for _ in range(60)),
        return_exceptions=True,
    )
    kept = [events for events in results if isinstance(events, list)]
    told = [error for error in results if isinstance(error, Unavailable)]
    assert len(kept) + len(told) == 60
    assert told
    assert len(await world.log(session.id)) == 1 + sum(map(len, kept))
    await store.close()


async def test_a_unit_that_does_not_fit_takes_no_other_with_it(small_disk: Path) -> None:
    store = SqliteStore(f"sqlite:///{small_disk}/zene.db")
    await store.migrate()
    world = World(store)
    session = await world.session(await world.user())
    small = [store.write(log.append, session.id, [STATE], 1) for _ in range(10)]
    huge = store.write(log.append, session.id, [STATE] * 20_000, 1)
    told, *kept = await asyncio.gather(huge, *small, return_exceptions=True)
    assert isinstance(told, Unavailable)
    assert all(isinstance(events, list) for events in kept)
    assert len(await world.log(session.id)) == 11
    await store.close()


def test_a_commit_is_on_the_disk_before_it_is_answered(tmp_path: Path) -> None:
    connection = connect(tmp_path / "zene.db")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_what_was_answered_outlives_kill_9(world: World, tmp_path: Path) -> None:
    session = await world.session(await world.user())
    for lines in (1, 5, 20, 60):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, tmp_path / "zene.db", session.id, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        answered = [int(await process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        rest, _ = await process.communicate()
        answered += [int(line) for line in rest.split(b"\n")[:-1]]
        events = await world.log(session.id)
        assert len(events) >= max(answered)
        assert len(events) % 3 == 1  # each unit whole or not at all


async def test_a_unit_that_fails_takes_no_neighbour_with_it(world: World) -> None:
    made = await asyncio.gather(
        *(
            world.store.write(
                users.create_user, world.id("usr"), f"{n // 2}@b.org", "", Role.MEMBER, 1
            )
            for n in range(40)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Conflict) for each in made) == 20
    assert await world.count(schema.users) == 20


async def test_a_closed_store_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await store.migrate()
    await store.close()
    await store.close()
    with pytest.raises(Unavailable):
        await store.read(users.count_users)
    with pytest.raises(Unavailable):
        await store.write(users.count_users)


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await store.migrate()
    session = await World(store).session(await World(store).user())
    waiting = [
        asyncio.create_task(store.write(log.append, session.id, [STATE], 1)) for _ in range(50)
    ]
    await asyncio.sleep(0)
    await store.close()
    assert len({events[0].seq for events in await asyncio.gather(*waiting)}) == 50


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/data/zene.db")
    await store.migrate()
    assert (tmp_path / "data" / "zene.db").stat().st_mode & 0o077 == 0
    await store.close()


async def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await store.migrate()
    await World(store).user()
    await store.migrate()
    assert await store.read(users.count_users) == 1
    await store.close()
    assert names(tmp_path) == ["zene.db"]


async def test_a_newer_schema_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await store.migrate()
    with sqlite3.connect(tmp_path / "zene.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.close()
    with pytest.raises(SetupError, match=rf"0999.*{schema.REVISION}"):
        await store.migrate()
    await store.close()
    assert names(tmp_path) == ["zene.db"]


async def test_a_schema_that_is_not_this_releases_is_refused_with_what_to_do(
    tmp_path: Path,
) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    with pytest.raises(SetupError, match=r"no schema yet.*zene migrate"):
        await store.check()
    assert names(tmp_path) == []
    await asyncio.to_thread(migrations.upgrade, f"sqlite:///{tmp_path}/zene.db", "0001")
    with pytest.raises(SetupError, match=rf"0001.*{schema.REVISION}.*zene migrate"):
        await store.check()
    await store.migrate()
    await store.check()
    await store.close()


async def test_a_copy_holds_what_is_still_in_the_log(world: World, tmp_path: Path) -> None:
    await world.user()
    connection = connect(tmp_path / "zene.db")
    copy_database(connection, tmp_path / "copy.db")
    connection.close()
    copy = SqliteStore(f"sqlite:///{tmp_path}/copy.db")
    assert await copy.read(users.count_users) == 1
    await copy.close()


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zene.db").write_bytes(b"no database" * 1000)
    store = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    with pytest.raises(SetupError, match="no database"):
        await store.migrate()
    await store.close()

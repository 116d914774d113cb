"""A server that is killed again and again at any point leaves nothing behind that nobody owns."""

import asyncio
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import Log, Zene, a_free_port, begin, served_by

CYCLES = 50
GONE_SECONDS = 10.0

pytestmark = pytest.mark.timeout(400)


class Left:
    """What a server with this home and these commands has on its machine."""

    def __init__(self, home: Path, nap: str) -> None:
        self._home = home
        self._nap = nap

    def processes(self) -> list[bytes]:
        """Command lines of the server, its helpers and what runs in its sandboxes."""
        mine = f"HOME={self._home}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                if self._nap.encode() in command or mine in (folder / "environ").read_bytes():
                    found.append(command)
            except OSError:
                continue
        return found

    def mounts(self) -> list[str]:
        """Images of it that are attached, and places of it that something is mounted on."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                lines.append(path.read_text())
            except OSError:  # freed while we looked
                continue
        return [line for line in lines if str(self._home) in line]

    def groups(self) -> list[Path]:
        """Its control groups, of whatever layout."""
        name = (self._home / "data" / "installation").read_text().strip()
        folders = [*Path("/sys/fs/cgroup").glob(f"zene/{name}")]
        return [*folders, *Path("/sys/fs/cgroup").glob(f"*/zene/{name}")]

    def temporary(self) -> list[Path]:
        """What it made in its folder for temporary files."""
        return list((self._home / "tmp").iterdir())


async def until_none(look: Callable[[], object]) -> None:
    """Look until there is none; the kernel tells nobody."""
    try:
        async with asyncio.timeout(GONE_SECONDS):
            while look():  # noqa: ASYNC110 - as said
                await asyncio.sleep(0.01)
    except TimeoutError:
        assert look() == [], "still there"


async def test_fifty_kills_at_random_points_leave_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("ZENE_TEST_SEED") or secrets.randbelow(10**6))
    print(f"ZENE_TEST_SEED={seed} kills at the same points again")  # noqa: T201
    random = Random(seed)
    nap = f"600.{random.randrange(10**9, 10**10)}"
    left = Left(tmp_path, nap)
    (tmp_path / "tmp").mkdir()
    command = f"setsid -f sleep {nap} </dev/null >/dev/null 2>&1; echo x >> log.txt"
    script = Script(
        answers=[
            Answer(calls=[Call(name="shell", arguments={"command": command})]),
            Answer(text="Done."),
        ]
    )
    begun: list[tuple[Log, str]] = []
    seen: set[bool] = set()
    async with ModelServer({"*": script}) as model:
        variables = served_by(model, TMPDIR=str(tmp_path / "tmp"))
        async with Zene(tmp_path, variables, a_free_port()) as zene:
            for _ in range(CYCLES):
                await zene.up()
                begun.append(await begin(zene))
                await so_many(begun[-1][0], random.randrange(14))
                assert left.processes()
                seen.update(map(bool, (left.mounts(), left.groups())))
                await zene.kill()
                await until_none(left.processes)
                await until_none(left.mounts)
            server = await zene.up()
            for log, task in begun:
                end = await log.finished(task)
                await log.check()
                if end["outcome"] == "succeeded":
                    await log.ran_once()
                else:  # three kills in a row within a step
                    assert end["error"]["code"] == "poison", end
            await server.end(signal.SIGTERM)
            assert True in seen or os.geteuid() != 0, "there was nothing to leave behind"
            assert (left.processes(), left.mounts(), left.groups()) == ([], [], [])
            assert left.temporary() == []


async def so_many(log: Log, events: int) -> None:
    """Follow the session for so many events, fleeting ones too, or to the end of its task."""
    async with aclosing(log.client.follow(log.session_id)) as following:
        async for event in following:
            events -= 1
            if events < 0 or event.type == "task.finished":
                return

"""However a sandbox or its server ends, nothing of it is left (guarantee G15)."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.contracts.sandbox.conftest import (
    attach_new_image,
    groups_of,
    is_running,
    pids_under,
    run,
    shell,
)
from zene.domain.errors import SandboxGone, SandboxUnavailable
from zene.sandbox import privileged
from zene.sandbox.base import Command, Folder, Limits, Spec
from zene.sandbox.bwrap import BubblewrapProvider
from zene.sandbox.cgroups import Group

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups and images need root")

SERVER = """
import asyncio, sys
from pathlib import Path
from tests.contracts.sandbox.conftest import TARGETS, attach_new_image
from zene.sandbox.base import Command, Folder, Spec
from zene.sandbox.bwrap import BubblewrapProvider

async def main(installation, folder):
    provider = BubblewrapProvider(installation=installation, data_dir=folder / "data")
    await provider.start()
    mount = attach_new_image(folder / "session.img")
    shown = tuple(Folder(target=target, mount=mount, path=name) for name, target in TARGETS.items())
    sandbox = await provider.open(Spec(label="session", folders=shown))
    script = "setsid sleep 1000 & trap '' TERM; echo kept > file; echo on; sleep 1000"
    running = sandbox.run(Command(argv=("/bin/sh", "-c", script)))
    print((await anext(running)).data.decode(), end="", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


@contextlib.asynccontextmanager
async def server(installation: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server of its own with one busy sandbox."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, installation, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"on\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(happened: Callable[[], bool]) -> None:
    """Look until it has; the kernel tells nobody."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.01)


async def until_gone(pids: set[int]) -> None:
    await until(lambda: not any(is_running(pid) for pid in pids))


async def until_detached(image: Path) -> None:
    await until(lambda: not privileged.is_attached(image))


def open_fds() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def read_inside(mount: int, path: str) -> str:
    return Path(f"/proc/self/fd/{mount}", path).read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_dies_leaves_no_process_and_no_mount(
    installation: str, tmp_path: Path, how: signal.Signals
) -> None:
    async with server(installation, tmp_path) as process:
        pids = pids_under(installation, "session")
        assert len(pids) >= 4
        process.send_signal(how)
        await process.wait()
        await until_gone(pids)
        await until_detached(tmp_path / "session.img")
    mount = privileged.attach_image(tmp_path / "session.img")
    assert read_inside(mount, "workspace/file") == "kept\n"
    os.close(mount)
    successor = BubblewrapProvider(installation=installation, data_dir=tmp_path / "data")
    await successor.start()
    assert groups_of(installation).groups() == []
    await successor.close()


async def test_a_launcher_that_dies_takes_its_sandboxes_along_and_is_replaced(
    provider: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    sandbox = await provider.open(spec)
    running = sandbox.run(Command(argv=("/bin/sh", "-c", "echo on; sleep 1000")))
    await anext(running)
    pids = pids_under(installation, spec.label)
    os.kill(launcher_pid(), signal.SIGKILL)
    with pytest.raises(SandboxGone):
        await anext(running)
    await until_gone(pids)
    again = await provider.open(spec)
    assert (await run(again, "true")).exit.code == 0


def test_a_launcher_whose_server_dies_before_it_reads_an_answer_says_nothing() -> None:
    server, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen(
        [sys.executable, "-c", "from zene.sandbox.launcher import main; main()"],
        stdin=its_end.fileno(),
        stderr=subprocess.PIPE,
    ) as launcher:
        its_end.close()
        no_namespace = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(server, [b'{"number": 1, "targets": []}'], [no_namespace])
        os.close(no_namespace)
        select.select([server], [], [], 20)  # it has answered
        server.close()
        told = launcher.communicate(timeout=20)[1]
    assert (launcher.returncode, told) == (0, b"")


def launcher_pid() -> int:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return next(int(pid) for pid, line in commands.items() if b"zene.sandbox.launcher" in line)


async def test_closing_gives_back_group_mount_and_fds(
    provider: BubblewrapProvider, installation: str, tmp_path: Path
) -> None:
    image = tmp_path / "own.img"
    mount = attach_new_image(image)
    workspace = Folder(target="/workspace", mount=mount, path="workspace")
    warm = await provider.open(Spec(label="warm", folders=()))
    await warm.close()
    before = open_fds()
    sandbox = await provider.open(Spec(label="own", folders=(workspace,)))
    await shell(sandbox, "setsid sleep 1000 & echo x > file")
    pids = pids_under(installation, "own")
    assert pids
    await sandbox.close()
    assert not any(is_running(pid) for pid in pids)
    assert groups_of(installation).groups() == []
    assert open_fds() == before
    os.close(mount)
    await until_detached(image)


async def test_what_a_predecessor_left_under_the_label_is_killed_first(
    provider: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    left = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    group = groups_of(installation).create(Limits())
    group.give(spec.label)
    join(group, left.pid)
    sandbox = await provider.open(spec)
    async with asyncio.timeout(5):
        assert await left.wait() == -signal.SIGKILL
    assert left.pid not in pids_under(installation, spec.label)
    assert (await run(sandbox, "true")).exit.code == 0


@pytest.mark.parametrize("limits", ["Limits()", "None"], ids=["made", "being made"])
async def test_what_a_predecessor_was_just_starting_is_killed_by_the_next_start(
    installation: str, tmp_path: Path, limits: str
) -> None:
    code = (
        "import sys; from zene.sandbox.base import Limits; from zene.sandbox.cgroups import find_cgroups;"
        f"find_cgroups(sys.argv[1]).create({limits})"  # without limits it dies once it has the folders
    )
    maker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, installation, stderr=asyncio.subprocess.DEVNULL
    )
    await maker.wait()
    left = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    groups = groups_of(installation)
    [group] = groups.groups()
    join(group, left.pid)
    mine = groups.create(Limits())
    kept = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    join(mine, kept.pid)
    successor = BubblewrapProvider(installation=installation, data_dir=tmp_path / "data")
    await successor.start()
    async with asyncio.timeout(5):
        assert await left.wait() == -signal.SIGKILL
    assert kept.returncode is None
    kept.kill()
    await kept.wait()
    mine.remove()
    await successor.close()
    assert groups.groups() == []


async def test_a_group_that_is_removed_while_somebody_looks_is_an_empty_one(
    installation: str,
) -> None:
    groups = groups_of(installation)
    group = groups.create(Limits())
    code = """if True:
        import os, sys
        for _ in range(3000):
            for folder in sys.argv[1:]:
                os.rmdir(folder)
                os.mkdir(folder)
    """
    folders = map(str, group.folders)
    remover = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *folders)
    looking = asyncio.create_task(remover.wait())
    while not looking.done():
        assert group.processes() == set()
        await asyncio.sleep(0)
    assert await looking == 0
    assert group.remove()


def join(group: Group, pid: int) -> None:
    for file in group.joins:
        Path(file).write_text(str(pid))


async def test_a_server_that_starts_leaves_its_living_neighbours_alone(
    provider: BubblewrapProvider, spec: Spec, installation: str, tmp_path: Path
) -> None:
    sandbox = await provider.open(spec)
    neighbour = BubblewrapProvider(installation=installation, data_dir=tmp_path / "other")
    await neighbour.start()
    assert (await run(sandbox, "true")).exit.code == 0
    await neighbour.kill(spec.label)
    with pytest.raises(SandboxGone):
        await run(sandbox, "true")
    await neighbour.close()


async def test_a_start_that_fails_leaves_nothing(
    provider: BubblewrapProvider, installation: str, tmp_path: Path
) -> None:
    before = open_fds()
    missing = Folder(target="/workspace", mount=None, path=str(tmp_path / "missing"))
    with pytest.raises(SandboxUnavailable, match="No such file"):
        await provider.open(Spec(label="broken", folders=(missing,)))
    assert groups_of(installation).groups() == []
    assert open_fds() == before


async def test_many_sandboxes_start_side_by_side(provider: BubblewrapProvider) -> None:
    specs = [Spec(label=f"session-{number}", folders=()) for number in range(8)]
    sandboxes = await asyncio.gather(*(provider.open(spec) for spec in specs))
    ran = await asyncio.gather(*(shell(sandbox, "id -u; hostname") for sandbox in sandboxes))
    assert {one.text for one in ran} == {"10001\nzene\n"}


async def test_a_start_that_is_cancelled_leaves_nothing(
    provider: BubblewrapProvider, installation: str
) -> None:
    for pause in (0.0, 0.002, 0.005, 0.01, 0.015, 0.02):
        opening = asyncio.create_task(provider.open(Spec(label="cancelled", folders=())))
        await asyncio.wait([opening], timeout=pause)
        opening.cancel()
        await asyncio.wait([opening])
        await provider.kill("cancelled")
        assert groups_of(installation).groups() == []

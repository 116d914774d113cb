import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest

from tests.unit.workspaces.conftest import MEBIBYTE, NoSandboxes
from zene.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from zene.sandbox import privileged
from zene.workspaces.storage import check_room
from zene.workspaces.threads import Threads
from zene.workspaces.workspaces import Workspace, Workspaces

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting an image needs root")


def attached(folder: Path) -> list[str]:
    """Loop devices on images below the folder."""
    found = []
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(device.read_text())
        except OSError:
            continue
    return [path for path in found if str(folder) in path]


async def test_creating_twice_keeps_what_was_written(workspaces: Workspaces) -> None:
    await workspaces.create("ses_1")
    async with workspaces.open("ses_1") as workspace:
        await workspace.files.write("x", b"kept")
    await asyncio.gather(*(workspaces.create("ses_1") for _ in range(5)))
    async with workspaces.open("ses_1") as workspace:
        assert await workspace.files.read("x", 9) == b"kept"


async def test_sessions_do_not_see_each_other(workspaces: Workspaces) -> None:
    for name in ("ses_1", "ses_2"):
        await workspaces.create(name)
    async with workspaces.open("ses_1") as one, workspaces.open("ses_2") as two:
        await one.files.write("x", b"mine")
        with pytest.raises(NotFound):
            await two.files.read("x", 9)


async def test_what_does_not_exist_cannot_be_opened(workspaces: Workspaces) -> None:
    with pytest.raises(NotFound):
        await workspaces.acquire("ses_none")
    with pytest.raises(InvalidInput):
        await workspaces.acquire("../projects/prj_1")


async def test_many_share_one_attachment_and_the_last_ends_it(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    await workspaces.create("ses_1")
    opened = await asyncio.gather(*(workspaces.acquire("ses_1") for _ in range(10)))
    is_image = opened[0].folders[0].mount is not None
    assert len(attached(tmp_path)) == is_image
    assert len({workspace.folders[0].mount for workspace in opened}) == 1
    for workspace in opened[1:]:
        await workspace.release()
        await workspace.release()
    await opened[0].files.write("x", b"still open")
    await opened[0].release()
    assert attached(tmp_path) == []


async def test_a_cancelled_wait_for_a_workspace_leaves_nothing_attached(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    await workspaces.create("ses_1")
    for turns in range(12):
        waiting = asyncio.ensure_future(workspaces.acquire("ses_1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(result, Workspace):  # it was there before the cancel
            await result.release()
        assert attached(tmp_path) == []
    async with workspaces.open("ses_1"):
        pass


async def test_a_deleted_workspace_is_gone_also_while_it_is_read(workspaces: Workspaces) -> None:
    await workspaces.create("ses_1")
    async with workspaces.open("ses_1"):
        await workspaces.delete("ses_1")
    await workspaces.delete("ses_1")
    with pytest.raises(NotFound):
        await workspaces.acquire("ses_1")


async def test_a_locked_tree_of_an_agent_can_be_deleted(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    await workspaces.create("ses_1")
    async with workspaces.open("ses_1") as workspace:
        deep = "d/" * 1500
        await workspace.files.write(deep + "x", b"x")
        (Path(f"/proc/self/fd/{workspace.root}") / "d/d").chmod(0)
    await workspaces.delete("ses_1")
    assert list((tmp_path / "workspaces").iterdir()) == []


async def test_only_what_is_old_unknown_and_unused_is_reaped(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    for name in ("ses_known", "ses_open", "ses_unknown"):
        await workspaces.create(name)
    (tmp_path / "workspaces/.left.img").touch()
    assert await workspaces.reap({"ses_known"}, set()) == 0
    later = time.time() + 7200
    async with workspaces.open("ses_open"):
        assert await workspaces.reap({"ses_known"}, {"prj_known"}, now=later) == 2
    left = {path.stem for path in (tmp_path / "workspaces").iterdir()}
    assert left == {"ses_known", "ses_open"}


@needs_root
async def test_what_another_process_has_open_is_not_reaped(tmp_path: Path) -> None:
    made = Workspaces(
        data_dir=tmp_path, sandboxes=NoSandboxes(), disk_bytes=64 * MEBIBYTE, inodes=1024
    )
    await made.start()
    await made.create("ses_1")
    other = privileged.attach_image(tmp_path / "workspaces/ses_1.img")
    later = time.time() + 7200
    assert await made.reap(set(), set(), now=later) == 0
    os.close(other)
    assert await made.reap(set(), set(), now=later) == 1
    await made.close()


async def test_closing_detaches_everything_and_twice_is_harmless(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    await workspaces.create("ses_1")
    await workspaces.acquire("ses_1")
    await workspaces.close()
    await workspaces.close()
    assert attached(tmp_path) == []


@needs_root
async def test_an_image_that_somebody_else_has_is_the_same_file_system_here(tmp_path: Path) -> None:
    made = Workspaces(
        data_dir=tmp_path, sandboxes=NoSandboxes(), disk_bytes=64 * MEBIBYTE, inodes=1024
    )
    await made.start()
    await made.create("ses_1")
    image = tmp_path / "workspaces/ses_1.img"
    other = privileged.attach_image(image)
    async with made.open("ses_1") as workspace:
        await workspace.files.write("here.txt", b"here")
        theirs = os.open("workspace/here.txt", os.O_RDONLY, dir_fd=other)
        assert os.read(theirs, 10) == b"here"
        os.close(theirs)
        assert len(attached(tmp_path)) == 1
    assert len(attached(tmp_path)) == 1
    os.close(other)
    await made.close()


@needs_root
async def test_an_image_that_is_being_attached_elsewhere_is_waited_for(tmp_path: Path) -> None:
    made = Workspaces(
        data_dir=tmp_path, sandboxes=NoSandboxes(), disk_bytes=64 * MEBIBYTE, inodes=1024
    )
    await made.start()
    await made.create("ses_1")
    with (tmp_path / "workspaces/ses_1.img").open() as image:
        fcntl.flock(image, fcntl.LOCK_EX)
        with pytest.raises(Conflict):
            await made.acquire("ses_1")
    async with made.open("ses_1"):
        pass
    await made.close()


@needs_root
async def test_file_threads_have_none_of_roots_rights(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0o600)
    threads = Threads("test", 1, uid=10001)
    with pytest.raises(PermissionError):
        await threads.run(secret.read_bytes)
    threads.close()
    assert secret.read_bytes() == b"x"


async def test_a_cancelled_call_ends_before_its_caller_goes_on() -> None:
    threads, began, ended = Threads("test", 1), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        time.sleep(0.05)
        ended.append(True)

    call = asyncio.ensure_future(threads.run(work))
    await began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == [True]
    threads.close()


def test_nothing_new_is_begun_on_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    check_room(tmp_path, free_bytes=0)
    with pytest.raises(Unavailable):
        check_room(tmp_path, free_bytes=1 << 60)

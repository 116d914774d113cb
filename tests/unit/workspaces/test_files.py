import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workspaces.archives import chunks
from tests.unit.workspaces.conftest import host_path
from tests.unit.workspaces.hostile import KEPT, cases, path_of
from zene.domain.errors import Conflict, InvalidInput, NotFound, TooLarge
from zene.sandbox.base import INSIDE_UID
from zene.workspaces.workspaces import Workspace

RACES = 2000
only_images = pytest.mark.parametrize("workspaces", ["images"], indirect=True)


async def test_what_is_written_is_read_back(workspace: Workspace) -> None:
    files = workspace.files
    await files.write("a/b/c.txt", b"content")
    assert await files.read("/workspace/a/b/c.txt", 100) == b"content"
    assert await files.read("a/b/c.txt", 4) == b"cont"
    assert await files.read("a/b/c.txt", 0) == b""
    assert (await files.stat("a/b/c.txt")).size == 7
    assert (await files.stat("a")).kind == "folder"


async def test_a_file_belongs_to_the_agent_and_is_no_program(workspace: Workspace) -> None:
    await workspace.files.write("a/b", b"x")
    for name, mode in (("a", 0o755), ("a/b", 0o644)):
        found = (host_path(workspace) / name).stat()
        assert found.st_uid == (INSIDE_UID if os.geteuid() == 0 else os.geteuid())
        assert stat.S_IMODE(found.st_mode) & ~0o022 == mode & ~0o022


async def test_a_file_that_is_written_again_keeps_its_mode(workspace: Workspace) -> None:
    await workspace.files.write("run", b"one")
    (host_path(workspace) / "run").chmod(0o750)
    await workspace.files.write("run", b"two")
    assert stat.S_IMODE((host_path(workspace) / "run").stat().st_mode) == 0o750
    assert await workspace.files.read("run", 9) == b"two"


async def test_a_file_that_must_be_new_is_not_replaced(workspace: Workspace) -> None:
    await workspace.files.write("x", b"first", must_be_new=True)
    with pytest.raises(Conflict):
        await workspace.files.write("x", b"second", must_be_new=True)
    assert await workspace.files.read("x", 9) == b"first"


async def test_of_many_who_make_the_same_file_one_wins(workspace: Workspace) -> None:
    made = await asyncio.gather(
        *(workspace.files.write("x", b"%d" % n, must_be_new=True) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(result is None for result in made) == 1
    assert sum(isinstance(result, Conflict) for result in made) == 19
    assert [entry.name for entry in (await workspace.files.list()).entries] == ["x"]


async def test_a_file_is_streamed_in_and_out(workspace: Workspace) -> None:
    content = bytes(range(256)) * 4000
    await workspace.files.write("big", chunks(content))
    assert b"".join([part async for part in workspace.files.stream("big")]) == content


async def test_an_upload_that_breaks_off_leaves_what_was_there(workspace: Workspace) -> None:
    async def broken(good: int) -> AsyncGenerator[bytes, None]:
        for _ in range(good):
            yield b"new"
        raise ConnectionResetError

    await workspace.files.write("x", b"old")
    for good in range(10):
        with pytest.raises(ConnectionResetError):
            await workspace.files.write("x", broken(good))
    assert await workspace.files.read("x", 9) == b"old"
    assert [entry.name for entry in (await workspace.files.list()).entries] == ["x"]


async def test_more_than_the_limit_is_not_written(workspace: Workspace) -> None:
    with pytest.raises(TooLarge):
        await workspace.files.write("x", b"12345", limit=4)
    with pytest.raises(TooLarge):
        await workspace.files.write("x", chunks(b"12345", 2), limit=4)
    assert (await workspace.files.list()).entries == ()


async def test_a_half_written_file_is_nobody_elses(workspace: Workspace) -> None:
    seen: list[tuple[str, int]] = []

    async def watched() -> AsyncGenerator[bytes, None]:
        yield b"half"
        seen.extend((p.name, p.stat().st_mode & 0o777) for p in host_path(workspace).iterdir())

    await workspace.files.write("x", watched())
    ((name, mode),) = seen
    assert mode == 0o600
    assert len(name) > 20
    assert name != "x"


async def test_a_folder_is_listed_in_pages(workspace: Workspace) -> None:
    names = sorted(f"{n}.txt" for n in range(25))
    for name in names:
        await workspace.files.write(f"d/{name}", b"x")
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await workspace.files.list("d", cursor=cursor, limit=10)
        found += [entry.name for entry in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == names
    with pytest.raises(InvalidInput):
        await workspace.files.list("d", cursor="é")
    with pytest.raises(NotFound):
        await workspace.files.list("nothing")


async def test_names_that_are_no_unicode_are_listed_with_escapes(workspace: Workspace) -> None:
    os.close(os.open(os.fsencode(host_path(workspace)) + b"/gr\xfcn", os.O_CREAT | os.O_WRONLY))
    assert [entry.name for entry in (await workspace.files.list()).entries] == ["gr\\xfcn"]


@pytest.mark.parametrize("case", cases("path"), ids=lambda case: case["id"])
async def test_a_hostile_path_stays_inside(workspace: Workspace, case: dict[str, Any]) -> None:
    path = path_of(case)
    if case["expect"] == KEPT:
        await workspace.files.write(path, b"kept")
        assert await workspace.files.read(path, 9) == b"kept"
        return
    with pytest.raises(InvalidInput):
        await workspace.files.write(path, b"x")
    with pytest.raises((InvalidInput, NotFound)):
        await workspace.files.read(path, 9)
    assert (await workspace.files.list()).entries == ()


async def test_what_is_no_file_is_refused_at_once(workspace: Workspace) -> None:
    here = host_path(workspace)
    os.mkfifo(here / "pipe", 0o666)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "socket"))
    (here / "folder").mkdir()
    (here / "out").symlink_to("/etc/passwd")
    (here / "up").symlink_to("../baseline")
    if os.geteuid() == 0:
        os.mknod(here / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    for name in sorted(path.name for path in here.iterdir()):
        with pytest.raises(InvalidInput):
            await asyncio.wait_for(workspace.files.read(name, 9), 1)
        with pytest.raises(InvalidInput):
            await asyncio.wait_for(workspace.files.write(name, b"x"), 1)
        with pytest.raises(InvalidInput):
            await anext(workspace.files.stream(name))
    kinds = {entry.name: entry.kind for entry in (await workspace.files.list()).entries}
    assert {kinds[name] for name in ("pipe", "socket", "folder", "out")} == {
        "pipe",
        "socket",
        "folder",
        "link",
    }


async def test_links_that_stay_inside_are_followed_when_reading(workspace: Workspace) -> None:
    await workspace.files.write("real/x", b"inside")
    (host_path(workspace) / "link").symlink_to("real")
    (host_path(workspace) / "file").symlink_to("real/x")
    assert await workspace.files.read("link/x", 9) == b"inside"
    await workspace.files.write("link/y", b"too")
    assert await workspace.files.read("real/y", 9) == b"too"
    with pytest.raises(InvalidInput):
        await workspace.files.write("file", b"not through a link")
    assert await workspace.files.read("real/x", 9) == b"inside"


async def test_gits_own_is_not_written_by_way_of_a_link(workspace: Workspace) -> None:
    (host_path(workspace) / ".git/hooks").mkdir(parents=True)
    (host_path(workspace) / "innocent").symlink_to(".git")
    for path in ("innocent/config", "innocent/hooks/pre-commit"):
        with pytest.raises(InvalidInput) as refused:
            await workspace.files.write(path, b"x")
        assert refused.value.code == "path_denied"


async def test_a_link_that_is_swapped_in_never_leads_out(
    workspace: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    (outside / "x").write_bytes(b"secret")
    here = host_path(workspace)
    await workspace.files.write("real/x", b"inside")
    (here / "d").symlink_to("real")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for target in (outside, "real"):
                (here / "next").symlink_to(target)
                (here / "next").rename(here / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    results = {"inside": 0, "refused": 0}
    try:
        for attempt in range(RACES):
            try:
                if attempt % 2:
                    await workspace.files.write("d/x", b"inside")
                else:
                    assert await workspace.files.read("d/x", 9) == b"inside"
                results["inside"] += 1
            except (InvalidInput, NotFound):
                results["refused"] += 1
    finally:
        over.set()
        swapper.join()
    assert (outside / "x").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["x"]
    assert min(results.values()) > 0, "there was no race"


@only_images
async def test_a_full_workspace_says_so_and_keeps_the_old_file(workspace: Workspace) -> None:
    await workspace.files.write("x", b"old")
    with pytest.raises(TooLarge) as full:
        await workspace.files.write("x", chunks(bytes(80 << 20), 1 << 20))
    assert full.value.code == "workspace_full"
    assert await workspace.files.read("x", 9) == b"old"
    await workspace.files.write("y", b"there is room again")


@only_images
async def test_all_inodes_taken_says_so(workspace: Workspace) -> None:
    with pytest.raises(OSError, match="No space left"):
        _touch_many(host_path(workspace), 9000)
    with pytest.raises(TooLarge):
        await workspace.files.write("late", b"")
    assert (await workspace.files.stat("1")).size == 0


def _touch_many(folder: Path, count: int) -> None:
    for n in range(count):
        (folder / f"{n}").touch()

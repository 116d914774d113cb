"""A look at the files' times finds every change, and nothing where there is none."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zene.workspaces import touched
from zene.workspaces.touched import was_touched


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "src" / "a.txt").write_text("a")
    (folder / "src" / "deep" / "b.txt").write_text("b")
    (folder / "src" / "link").symlink_to("a.txt")
    return folder


@pytest.fixture
def descriptor(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)  # as an open workspace has it
    yield fd
    os.close(fd)


def later(probe: Path) -> int:
    """A time (ms) of which the kernel's stamps are past, and all that were given before are not."""
    mark_ns = time.time_ns() + touched._SLACK_NS
    while True:
        probe.write_text("")
        if probe.stat().st_ctime_ns > mark_ns + 1_000_000:
            return mark_ns // 1_000_000 + 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "written in place": lambda root: (root / "src/deep/b.txt").write_text("c"),
    "made": lambda root: (root / "src/new").write_text(""),
    "deleted": lambda root: (root / "src/deep/b.txt").unlink(),
    "renamed": lambda root: (root / "src/a.txt").rename(root / "src/c.txt"),
    "made executable": lambda root: (root / "src/a.txt").chmod(0o755),
    "dated back": lambda root: os.utime(root / "src/a.txt", (0, 0)),
    "a folder": lambda root: (root / "src/deep/folder").mkdir(),
    "in the folder itself": lambda root: (root / "new").write_text(""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_seen(
    root: Path, descriptor: int, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    since = later(tmp_path / "probe")
    assert not was_touched(descriptor, since)
    change(root)
    assert was_touched(descriptor, since)


def test_what_git_keeps_for_itself_is_no_change(
    root: Path, descriptor: int, tmp_path: Path
) -> None:
    since = later(tmp_path / "probe")
    (root / ".git" / "index").write_text("")
    assert not was_touched(descriptor, since)


def test_no_link_leads_out(root: Path, descriptor: int, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    since = later(tmp_path / "probe")
    (tmp_path / "other").write_text("")
    assert not was_touched(descriptor, since)


@pytest.mark.parametrize("name", ["MOST_ENTRIES", "MOST_DEPTH"])
def test_a_look_that_would_take_long_is_given_up(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tomorrow = time.time_ns() // 1_000_000 + 86_400_000
    assert not was_touched(descriptor, tomorrow)
    monkeypatch.setattr(touched, name, 2)
    assert was_touched(descriptor, tomorrow)


def test_folders_without_end_do_no_harm(root: Path, descriptor: int) -> None:
    above = os.open(root, os.O_RDONLY)
    for _ in range(2 * touched.MOST_DEPTH):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    assert was_touched(descriptor, time.time_ns() // 1_000_000 + 86_400_000)

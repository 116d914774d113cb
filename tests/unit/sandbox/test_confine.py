"""The files that sandboxes show, and the command line that starts one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zene.sandbox import confine
from zene.sandbox.base import Folder, Spec


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
def test_what_is_shown_can_be_read_by_all_whatever_the_umask(tmp_path: Path) -> None:
    shown = tmp_path / "zene" / "shown"
    confine.prepare(shown)
    modes = {path.stat().st_mode & 0o777 for path in shown.rglob("*") if not path.is_symlink()}
    assert modes == {0o755, 0o644}


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    confine.prepare(tmp_path / "shown")
    before = {path: path.lstat().st_ino for path in tmp_path.rglob("*") if not path.is_symlink()}
    confine.prepare(tmp_path / "shown")
    after = {path: path.lstat().st_ino for path in tmp_path.rglob("*") if not path.is_symlink()}
    assert after == before


def test_a_folder_is_only_given_a_place_unless_it_is_bound(tmp_path: Path) -> None:
    folder = Folder(target="/workspace", mount=None, path="/data/workspace")
    spec = Spec(
        label="x", folders=(folder,), read_only_paths=(Path("/usr/share"), Path("/opt/lib"))
    )
    moved = " ".join(confine.arguments(spec, tmp_path, bind_folders=False))
    bound = " ".join(confine.arguments(spec, tmp_path, bind_folders=True))
    assert "/data/workspace" not in moved
    assert "--bind /data/workspace /workspace" in bound
    assert "--dir /opt/lib" in moved
    assert "--ro-bind /opt/lib /opt/lib" in bound
    assert "/usr/share" not in moved + bound

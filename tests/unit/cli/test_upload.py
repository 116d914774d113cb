import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from zene.cli import upload
from zene.domain.errors import InvalidInput

GIT = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@zene.example")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A work tree with a commit, a change, a new file, an ignored one and a deleted one."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kept.txt").write_text("committed")
    (folder / "gone.txt").write_text("committed")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Begin")
    (folder / "kept.txt").write_text("changed since")
    (folder / "new.txt").write_text("untracked")
    (folder / "noise.log").write_text("ignored")
    (folder / "gone.txt").unlink()
    return folder


def packed(folder: Path, tmp_path: Path) -> dict[str, tarfile.TarInfo]:
    archive = tmp_path / "out.tar.gz"
    upload.pack(folder, archive)
    with tarfile.open(archive) as tar:
        return {entry.name: entry for entry in tar}


def test_a_work_tree_is_packed_as_git_sees_it(repository: Path, tmp_path: Path) -> None:
    assert sorted(packed(repository, tmp_path)) == [".gitignore", "kept.txt", "new.txt"]


def test_uncommitted_changes_go_along(repository: Path, tmp_path: Path) -> None:
    archive = tmp_path / "out.tar.gz"
    assert upload.pack(repository, archive) == 3
    with tarfile.open(archive) as tar:
        content = tar.extractfile("kept.txt")
        assert content is not None
        assert content.read() == b"changed since"


def test_a_folder_inside_a_work_tree_is_packed_alone(repository: Path, tmp_path: Path) -> None:
    (repository / "inner").mkdir()
    (repository / "inner" / "a.py").write_text("")
    (repository / "inner" / "a.log").write_text("")
    assert sorted(packed(repository / "inner", tmp_path)) == ["a.py"]


def test_a_work_tree_inside_another_goes_along(repository: Path, tmp_path: Path) -> None:
    inner = repository / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "a.py").write_text("")
    git(inner, "add", ".")
    git(inner, "commit", "--quiet", "-m", "Begin")
    assert "inner/a.py" in packed(repository, tmp_path)


def test_a_folder_without_git_loses_what_tools_make_anew(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    for name in (
        "src/a.py",
        "src/__pycache__/a.pyc",
        "node_modules/x/y.js",
        ".env",
        ".venv/bin/python",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert sorted(packed(folder, tmp_path)) == [".env", "src/a.py"]


def test_links_are_packed_as_links_and_never_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "plain", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("not to be uploaded")
    (folder / "file").symlink_to(outside / "secret")
    (folder / "folder").symlink_to(outside)
    found = packed(folder, tmp_path)
    assert {name: entry.issym() for name, entry in found.items()} == {"file": True, "folder": True}


def test_what_is_neither_file_nor_link_stays_behind(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    assert packed(folder, tmp_path) == {}


def test_an_archive_says_nothing_of_its_owner(repository: Path, tmp_path: Path) -> None:
    (repository / "run.sh").write_text("")
    (repository / "run.sh").chmod(0o775)
    found = packed(repository, tmp_path)
    assert {(e.uid, e.gid, e.uname, e.gname) for e in found.values()} == {(0, 0, "", "")}
    assert (found["run.sh"].mode, found["new.txt"].mode) == (0o755, 0o644)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no folder"):
        upload.pack(tmp_path / "nowhere", tmp_path / "out.tar.gz")


@pytest.mark.parametrize(
    ("project", "is_url"),
    [
        ("https://git.zene.example/a.git", True),
        ("ssh://git@git.zene.example/a", True),
        ("git@git.zene.example:a/b.git", True),
        (".", False),
        ("some/folder", False),
        ("C:folder", False),
    ],
)
def test_a_url_is_told_from_a_folder(project: str, is_url: bool) -> None:  # noqa: FBT001
    assert upload.is_git_url(project) == is_url


async def test_a_git_url_is_cloned_and_packed(repository: Path) -> None:
    async with upload.packed(f"file://{repository}") as archive:
        with tarfile.open(archive) as tar:
            assert sorted(tar.getnames()) == [".gitignore", "gone.txt", "kept.txt"]
    assert not archive.exists()


async def test_a_url_that_cannot_be_cloned_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="could not clone file:///nowhere"):
        async with upload.packed("file:///nowhere"):
            pass

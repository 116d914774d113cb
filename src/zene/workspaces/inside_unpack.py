"""Runs inside a sandbox: unpacks a .tar.gz from stdin into /workspace and records it as the baseline.

Whatever leads out of the folder, or is no file, folder or link, refuses the whole archive. Of a `.git`
folder only objects and refs are taken into a new repository.
"""

# ruff: noqa: PTH102, PTH108, PTH211
# Names in an archive are bytes, which pathlib does not take.

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from zene.workspaces.inside_answer import Refused, answer, write_all
from zene.workspaces.inside_git import WORKSPACE
from zene.workspaces.inside_repository import Repository, record_baseline
from zene.workspaces.inside_tar import Gunzip, Member, content, members, unsafe

MAX_NAME, MAX_PATH = 255, 4096 - len("/workspace/") - 1
NAMED_AT_MOST = 50


def unpack(options: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The whole of it."""
    os.chdir(WORKSPACE)
    os.umask(0o022)
    tar = Gunzip(sys.stdin.buffer, options["most_bytes"])
    tree, repository = Tree(options["most_entries"]), Repository(options)
    for one in members(tar):
        parts = _parts_of(one.name)
        data = content(tar, one.size)
        if b".git" in (part.lower() for part in parts):
            repository.add(one, parts, data)
        elif parts or one.kind != "dir":
            tree.add(one, b"/".join(parts), data)
        for _ in data:  # what was dropped is still to be read
            pass
    repository.take_over()
    record_baseline(options)
    shown = [ascii(name)[1:-1] for name in sorted(repository.dropped)]
    if len(shown) > NAMED_AT_MOST:
        shown[NAMED_AT_MOST:] = [f"… and {len(shown) - NAMED_AT_MOST} more"]
    return {"files": tree.files, "bytes": tree.bytes, "dropped": shown}, b""


class Tree:
    """Makes members below the current folder. No path of theirs ever goes through a link."""

    def __init__(self, most_entries: int) -> None:
        self._most = most_entries
        self._folders = {b""}
        self._now = time.time()
        self.entries = self.files = self.bytes = 0

    def add(self, one: Member, path: bytes, data: Iterator[bytes]) -> None:
        """Make one, with its bytes from `data`; folders above it that the archive does not name too."""
        self.entries += 1
        if self.entries > self._most:
            raise Refused(
                413, "archive_too_many_files", "the archive has more files than are allowed"
            )
        if one.kind == "dir":
            self.make_folder(path)
            return
        self.make_folder(path.rpartition(b"/")[0])
        self._make_way(path)
        if one.kind == "link":
            os.symlink(_checked_target(one, path), path)
        elif one.kind == "same":
            self._same(one, path)
        else:
            self._file(one, path, data)
        self.files += 1

    def make_folder(self, path: bytes) -> None:
        """Make it and those above it, where they are missing."""
        if path in self._folders:
            return
        parts = path.split(b"/")
        for depth in range(1, len(parts) + 1):
            above = b"/".join(parts[:depth])
            if above not in self._folders:
                _make_one_folder(above)
                self._folders.add(above)

    def _make_way(self, path: bytes) -> None:
        """The last member of a name wins, as with tar, but never in place of a folder."""
        if path in self._folders:
            raise unsafe(path, "is a folder and something else at once")
        with suppress(FileNotFoundError):
            os.unlink(path)

    def _same(self, one: Member, path: bytes) -> None:
        source = b"/".join(_parts_of(one.target))
        above = source.rpartition(b"/")[0]
        if above not in self._folders or not _is_file(source):
            raise unsafe(one.name, "is a hard link to something that is no file of the archive")
        os.link(source, path, follow_symlinks=False)

    def _file(self, one: Member, path: bytes, data: Iterator[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        modified = min(one.mtime, self._now)
        fd = os.open(path, flags, 0o600)
        try:
            for part in data:
                write_all(fd, part)
            os.fchmod(fd, 0o755 if one.mode & 0o100 else 0o644)
            os.utime(fd, (modified, modified))
        finally:
            os.close(fd)
        self.bytes += one.size


def _make_one_folder(path: bytes) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise unsafe(path, "is a folder and something else at once") from None


def _is_file(path: bytes) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _parts_of(name: bytes) -> list[bytes]:
    """The names on the way to a member; none for the archive's own folder."""
    if name.startswith(b"/"):
        raise unsafe(name, "is absolute")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise unsafe(name, "leads out of its folder")
    if len(name) > MAX_PATH or any(len(part) > MAX_NAME for part in parts):
        raise unsafe(name, "is too long")
    if re.search(rb"[\x00-\x1f\x7f]", name):
        raise unsafe(name, "has control characters in its name")
    return parts


def _checked_target(one: Member, path: bytes) -> bytes:
    """Its target, with ".." only in front, and no further up than the link is deep: then no chain of links leads out."""
    steps = one.target.split(b"/")
    ups = 0
    while ups < len(steps) and steps[ups] == b"..":
        ups += 1
    if (
        not one.target
        or one.target.startswith(b"/")
        or b".." in steps[ups:]
        or ups > path.count(b"/")
    ):
        raise unsafe(one.name, "is a link that leads out of its folder")
    return one.target


if __name__ == "__main__":
    answer(unpack)

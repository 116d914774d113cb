"""How workspaces are kept on this host: as images of their own (`images`), or as plain folders (`folders`).

Either way a workspace consists of the same four folders, all of which belong to INSIDE_UID or, where Zene
is an ordinary user, to that user. Sandboxes are shown the folders, never the place where they are kept.
"""

import os
from pathlib import Path
from typing import Protocol

from zene.domain.errors import InvalidInput, Unavailable
from zene.sandbox.base import Folder

WORKSPACE, HOME, TEMPORARY = "workspace", "home", "tmp"
BASELINE = "baseline"  # Zene's own record of what the project was; no agent ever sees it
FOLDERS = (WORKSPACE, HOME, TEMPORARY, BASELINE)
FREE_BYTES, FREE_SHARE = 1 << 30, 0.05  # below either, nothing new is begun


class Attached:
    """An open workspace: `root` is its /workspace for file access. Closing it twice is harmless."""

    def __init__(self, root: int, *, mount: int | None, base: Path | None = None) -> None:
        self.root = root
        self._mount = mount
        self._base = base

    def folder(self, name: str, target: str, *, read_only: bool = False) -> Folder:
        """One of FOLDERS, to be shown by a sandbox at `target`."""
        path = name if self._base is None else str(self._base / name)
        return Folder(target=target, mount=self._mount, path=path, read_only=read_only)

    def close(self) -> None:
        """Give everything back; for a thread, since the last close writes what is not on disk yet."""
        for fd in (self.root, self._mount):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.root, self._mount = -1, None


class Storage(Protocol):
    """Keeps workspaces under names. All but `prepare` and `attach` are for a thread."""

    owner: int | None  # the uid to take on for file access; None to stay who we are

    async def prepare(self) -> None:
        """Make the folders and what an empty workspace is copied from. Raises SetupError."""
        ...

    def place(self, kind: str, name: str) -> Path:
        """Where a project's or a session's workspace is kept; says nothing about whether it exists."""
        ...

    def copy(self, source: Path | None, target: Path) -> None:
        """Make `target` a copy of `source`, or an empty workspace; at once, and not if it exists."""
        ...

    def attach(self, place: Path) -> Attached:
        """Open it. Raises NotFound, and Conflict while somebody else has it open."""
        ...

    def is_open(self, place: Path) -> bool:
        """Whether a process of this host is known to have it open."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """Let a finished workspace take the place of another, which goes."""
        ...

    def remove(self, place: Path) -> None:
        """Delete it, in use or not; harmless when there is none."""
        ...


def checked_name(name: str) -> str:
    """A project's or session's id, where it can be the name of a file. Raises InvalidInput."""
    if 0 < len(name) <= 64 and name.isascii() and name.replace("_", "").replace("-", "").isalnum():
        return name
    raise InvalidInput(f"{name[:80]!a} is not an id", code="bad_id")


def check_room(folder: Path, free_bytes: int = FREE_BYTES) -> None:
    """Raise Unavailable when the disk is nearly full: images are sparse, and a full host loses their data."""
    disk = os.statvfs(folder)
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free < max(free_bytes, whole * FREE_SHARE):
        raise Unavailable(
            "the disk of Zene's data folder is nearly full; an administrator has to make room",
            code="disk_full",
            retry_after=60,
        )

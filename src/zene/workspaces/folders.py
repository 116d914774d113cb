"""Workspaces as plain folders, for where no image can be mounted: no cap on disk, and one user for all.

Only the user that Zene runs as can enter the folder they are kept in, and they belong to that user; or to
INSIDE_UID, as files in images do, where that user is root.
"""

import errno
import os
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path

from zene.domain.errors import NotFound
from zene.sandbox.base import INSIDE_UID
from zene.workspaces.storage import FOLDERS, WORKSPACE, Attached


class Folders:
    """See `storage.Storage`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.owner = INSIDE_UID if os.geteuid() == 0 else None

    async def prepare(self) -> None:
        """As in Storage; there is nothing to make."""

    def place(self, kind: str, name: str) -> Path:
        """As in Storage."""
        return self._data_dir / kind / name

    def copy(self, source: Path | None, target: Path) -> None:
        """As in Storage. Takes as long as copying the files does."""
        making = target.with_name(f".{secrets.token_hex(8)}")
        try:
            making.mkdir(mode=0o700)
            for name in FOLDERS:
                self._make(making / name, None if source is None else source / name)
            _rename_if_new(making, target)
        finally:
            self.remove(making)

    def _make(self, folder: Path, source: Path | None) -> None:
        if source is not None:
            _run("cp", "-a", "--reflink=auto", "--", str(source), str(folder))
            return
        folder.mkdir(mode=0o700)
        if self.owner is not None:
            os.chown(folder, self.owner, self.owner)

    def attach(self, place: Path) -> Attached:
        """As in Storage; nothing keeps another process from opening it too."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return Attached(os.open(place / WORKSPACE, flags), mount=None, base=place)
        except FileNotFoundError as err:
            raise NotFound("this workspace does not exist, or not any more") from err

    def is_open(self, place: Path) -> bool:
        """As in Storage: of folders nobody knows."""
        del place
        return False

    def replace(self, source: Path, target: Path) -> None:
        """As in Storage; a crash between the two steps leaves none rather than half of one."""
        old = target.with_name(f".{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            target.rename(old)
        source.rename(target)
        self.remove(old)

    def remove(self, place: Path) -> None:
        """As in Storage. Takes as long as deleting the files does, but it is gone at once."""
        going = place.with_name(f".{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            place.rename(going)
            _delete(going)


def snapshot(source: Path, target: Path) -> None:
    """Copy a plain workspace; a file that changes meanwhile may be of another moment than its neighbour.
    Raises FileNotFoundError.
    """
    if not source.is_dir():
        raise FileNotFoundError(source)
    _run("cp", "-a", "--reflink=auto", "--", str(source), str(target))


def _rename_if_new(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _delete(folder: Path) -> None:
    """By rm, which walks trees of any depth; folders that an agent locked are unlocked first."""
    try:
        _run("rm", "-rf", "--", str(folder))
    except subprocess.CalledProcessError:
        _run("chmod", "-R", "u+rwX", "--", str(folder))
        _run("rm", "-rf", "--", str(folder))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)  # noqa: S603 - ours

"""One write of a file: into a temporary beside it that nobody can guess, then renamed, so that nobody sees half.

The folder is opened once and everything happens inside that folder, whatever its path means by then.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from zene.domain.errors import Conflict
from zene.workspaces import paths, safe
from zene.workspaces.faults import explained

_NONE = -1  # instead of a descriptor
_NEW_FILE = 0o644
_NEW_FOLDER = 0o755


class Draft:
    """A file on its way. All methods are for a file thread; `abandon` last, also after `commit`."""

    def __init__(self, root: int, path: str, *, must_be_new: bool) -> None:
        self._root = root
        self._folder, _, self._name = path.rpartition("/")
        self._path = path
        self._must_be_new = must_be_new
        self._temporary = f".zene-{secrets.token_hex(12)}"
        self._mode = _NEW_FILE
        self._parent = self._fd = _NONE

    def begin(self) -> None:
        """Make the folders that are missing and the temporary. Raises what `explained` and `Files` say."""
        with explained(self._path):
            self._parent = _folder_for(self._root, self._folder)
            _refuse_gits_own(self._parent)
            self._look_at_the_present_one(self._parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._temporary, flags, 0o600, dir_fd=self._parent)

    def append(self, content: bytes) -> None:
        """Write on."""
        view = memoryview(content)
        with explained(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def commit(self) -> None:
        """Let it take its place."""
        here = self._parent
        with explained(self._path):
            os.fchmod(self._fd, self._mode)
            if self._must_be_new:
                os.link(self._temporary, self._name, src_dir_fd=here, dst_dir_fd=here)
            else:
                os.rename(self._temporary, self._name, src_dir_fd=here, dst_dir_fd=here)
                self._temporary = ""

    def abandon(self) -> None:
        """Leave nothing behind but what was committed."""
        if self._fd != _NONE:
            os.close(self._fd)
            if self._temporary:
                with suppress(OSError):
                    os.unlink(self._temporary, dir_fd=self._parent)
        if self._parent != _NONE:
            os.close(self._parent)
        self._fd = self._parent = _NONE

    def _look_at_the_present_one(self, parent: int) -> None:
        """Keep its mode; refuse to replace what is no regular file, above all a link."""
        try:
            present = os.stat(self._name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(present.st_mode):
            raise safe.not_a_file(self._path, present.st_mode)
        if self._must_be_new:
            raise Conflict(f"{self._path!a} exists already", code="exists")
        self._mode = stat.S_IMODE(present.st_mode) & 0o777


def _folder_for(root: int, path: str) -> int:
    """The folder, made with those above it where they are missing."""
    with suppress(FileNotFoundError):
        return safe.open_folder(root, path)
    names = path.split("/")
    folder = safe.open_folder(root, "")
    for depth, name in enumerate(names, start=1):
        above = folder
        try:
            folder = _open_or_make(root, "/".join(names[:depth]), above, name)
        finally:
            os.close(above)
    return folder


def _open_or_make(root: int, path: str, above: int, name: str) -> int:
    with suppress(FileNotFoundError):
        return safe.open_folder(root, path)
    with suppress(FileExistsError):
        os.mkdir(name, _NEW_FOLDER, dir_fd=above)
    return safe.open_folder(root, path)


def _refuse_gits_own(folder: int) -> None:
    """A link may lead to git's own folder under another name: ask the kernel where this one is."""
    where = str(Path(f"/proc/self/fd/{folder}").readlink())
    if paths.is_gits_own(where):
        raise paths.gits_own(where)

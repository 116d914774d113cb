"""Workspaces as ext4 images: a cap on bytes and inodes that nobody inside can lift, and 3 ms to open one.

An image is written by the kernel alone and mounted nowhere: it is an open descriptor. A new one is a
sparse copy of a template or of a project's image. Needs root.
"""

import asyncio
import errno
import os
import secrets
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from zene.domain.errors import Conflict, NotFound, SetupError
from zene.sandbox import privileged
from zene.sandbox.base import INSIDE_UID
from zene.workspaces import safe
from zene.workspaces.storage import FOLDERS, WORKSPACE, Attached

_MKFS_SECONDS = 60
_DETACH_SECONDS, _DETACH_PAUSE_SECONDS = 5.0, 0.002
_COPY_BYTES = 1 << 20
_NO_RANGES = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_MKFS_OPTIONS = (
    *("-q", "-F", "-m", "0", "-O", "^resize_inode", "-J", "size=4"),
    *("-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"),
)


class Images:
    """See `storage.Storage`."""

    owner: int | None = INSIDE_UID

    def __init__(self, data_dir: Path, *, disk_bytes: int, inodes: int) -> None:
        self._data_dir = data_dir
        self._bytes = disk_bytes
        self._inodes = inodes
        self._template = data_dir / "templates" / f"{disk_bytes}-{inodes}.img"

    async def prepare(self) -> None:
        """As in Storage; the template is made once for ever."""
        await asyncio.to_thread(self._make_template)

    def place(self, kind: str, name: str) -> Path:
        """As in Storage."""
        return self._data_dir / kind / f"{name}.img"

    def copy(self, source: Path | None, target: Path) -> None:
        """As in Storage. A few ms, and the disk's speed where the file system cannot share blocks."""
        making = target.with_name(f".{secrets.token_hex(8)}.img")
        try:
            copy_sparse(source or self._template, making)
            with suppress(FileExistsError):
                os.link(making, target)
        finally:
            making.unlink(missing_ok=True)

    def attach(self, place: Path) -> Attached:
        """As in Storage."""
        try:
            mount = privileged.attach_image(place)
        except FileNotFoundError as err:
            raise NotFound("this workspace does not exist, or not any more") from err
        try:
            return Attached(safe.open_folder(mount, WORKSPACE), mount=mount)
        except BaseException:
            os.close(mount)
            raise

    def is_open(self, place: Path) -> bool:
        """As in Storage."""
        return privileged.is_attached(place)

    def replace(self, source: Path, target: Path) -> None:
        """As in Storage. It is on the disk before, since an upload that was answered is kept."""
        _wait_until_detached(source)
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        source.rename(target)

    def remove(self, place: Path) -> None:
        """As in Storage; what is open stays readable until it is closed."""
        place.unlink(missing_ok=True)

    def _make_template(self) -> None:
        self._template.parent.mkdir(mode=0o700, exist_ok=True)
        if self._template.exists():
            return
        making = self._template.with_name(f".{secrets.token_hex(8)}.img")
        try:
            self._format(making)
            _furnish(making)
            making.rename(self._template)
        finally:
            making.unlink(missing_ok=True)

    def _format(self, image: Path) -> None:
        program = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None:
            raise SetupError("mkfs.ext4 is missing; install the package e2fsprogs")
        with image.open("xb") as file:
            image.chmod(0o600)
            file.truncate(self._bytes)
        argv = (program, *_MKFS_OPTIONS, "-N", str(self._inodes), str(image))
        try:
            subprocess.run(  # noqa: S603 - numbers and a path of our own
                argv,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_MKFS_SECONDS,
            )
        except subprocess.CalledProcessError as err:
            raise SetupError(f"mkfs.ext4 failed: {err.stderr.decode(errors='replace')}") from err


def _wait_until_detached(image: Path) -> None:
    """The kernel writes the last of it some ms after the last sandbox that showed it has ended."""
    deadline = time.monotonic() + _DETACH_SECONDS
    while privileged.is_attached(image):
        if time.monotonic() > deadline:
            raise Conflict("the new files are still in use; try again", code="image_in_use")
        time.sleep(_DETACH_PAUSE_SECONDS)


def _furnish(image: Path) -> None:
    mount = privileged.attach_image(image)
    try:
        for name in FOLDERS:
            os.mkdir(name, 0o700, dir_fd=mount)
            os.chown(name, INSIDE_UID, INSIDE_UID, dir_fd=mount)
        os.rmdir("lost+found", dir_fd=mount)
    finally:
        os.close(mount)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy what is data and leave holes as holes."""
    with source.open("rb") as old, target.open("xb") as new:
        target.chmod(0o600)
        size = os.fstat(old.fileno()).st_size
        os.ftruncate(new.fileno(), size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError as err:
                if err.errno == errno.ENXIO:  # a hole to the end
                    return
                raise
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            _copy_range(old.fileno(), new.fileno(), at, end)
            at = end


def _copy_range(source: int, target: int, at: int, end: int) -> None:
    while at < end:
        try:
            copied = os.copy_file_range(source, target, end - at, at, at)
        except OSError as err:
            if err.errno not in _NO_RANGES:
                raise
            copied = os.pwrite(target, os.pread(source, min(end - at, _COPY_BYTES), at), at)
        if copied == 0:
            raise OSError(errno.EIO, "the image became shorter while it was copied")
        at += copied

"""What needs root: few closed operations on ids, numbers and fds, so that they can move to a helper.

A session's files are an ext4 image that is only ever mounted detached: an fd, never a path on the host.
Whatever ends the process that holds the fd also unmounts the image and frees its loop device.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zene.domain.errors import Conflict
from zene.sandbox import syscalls

_TRIAL_BYTES = 1 << 20
_SAFE = syscalls.MOUNT_NOSUID | syscalls.MOUNT_NODEV


def can_mount_images() -> str | None:
    """None where a session's files can be an image with a cap; else why not, and what would help.

    It makes and mounts a small one, some 10 ms of blocking work: call it in a thread.
    """
    if os.geteuid() != 0:
        return "needs root"
    mkfs = shutil.which("mkfs.ext4")
    if mkfs is None:
        return "needs mkfs.ext4: apt install e2fsprogs"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "trial.img")
        with image.open("wb") as file:
            file.truncate(_TRIAL_BYTES)
        try:
            command = [mkfs, "-q", "-F", str(image)]
            subprocess.run(command, check=True, capture_output=True, timeout=30)  # noqa: S603 - ours
            os.close(attach_image(image))
        except (OSError, subprocess.SubprocessError) as err:
            return f"an ext4 image cannot be mounted here ({err}): allow loop devices and mounts"
    return None


def attach_image(image: Path) -> int:
    """Mount an ext4 image detached, NOSUID|NODEV|NOATIME, and answer the mount's fd; closing it unmounts.

    Where a loop device of this host has the image already, it is mounted from that one: the kernel then has
    one file system, however many mounts of it there are. A second device would corrupt it. Raises Conflict
    while somebody else attaches the same image, OSError when the kernel refuses. Takes 1 to 3 ms of system
    calls: call it in a thread.
    """
    path = image.resolve(strict=True)
    with _attaching(path):
        device, loop_fd = _shared_loop(path) or syscalls.attach_loop(str(path))
        try:
            options = (("source", device), ("discard", None))
            return syscalls.mount_detached("ext4", options, _SAFE | syscalls.MOUNT_NOATIME)
        finally:
            os.close(loop_fd)


def is_attached(image: Path) -> bool:
    """Whether a loop device of this host has the image, whoever attached it."""
    return _loop_of(image.resolve()) is not None


@contextmanager
def _attaching(image: Path) -> Iterator[None]:
    """One process at a time, so that no two find the image free and attach it both."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(fd, image.name)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, name: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise Conflict(
            f"{name} is being attached by another process; try again", code="image_in_use"
        ) from err


def _shared_loop(image: Path) -> tuple[str, int] | None:
    """The loop device that has the image, and an fd that keeps it; None where there is none any more."""
    name = _loop_of(image)
    if name is None:
        return None
    try:
        fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # freed while we looked
        return None
    if _loop_of(image) == name:
        return f"/dev/{name}", fd
    os.close(fd)
    return None


def _loop_of(image: Path) -> str | None:
    wanted = str(image)
    loops = Path("/sys/block").glob("loop*")
    return next((loop.name for loop in loops if _backing_file(loop) == wanted), None)


def _backing_file(loop: Path) -> str | None:
    try:
        return (loop / "loop/backing_file").read_text().rstrip("\n")
    except OSError:  # not attached, or freed while we looked
        return None


def clone_folder(mount_fd: int, path: str, users_fd: int | None, *, read_only: bool = False) -> int:
    """Clone the folder `path` of a mount as a detached mount of its own, and answer its fd.

    `users_fd`, a user namespace, maps the owners on disk to the namespace's host uids. `path` is of our own
    making, never a user's: it is followed through symbolic links.
    """
    fd = syscalls.open_tree(path, folder_fd=mount_fd)
    try:
        attributes = _SAFE | (syscalls.MOUNT_READ_ONLY if read_only else 0)
        syscalls.mount_setattr(fd, attributes, users_fd=users_fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def clone_library(path: Path) -> int:
    """Clone a folder of the host, with what is mounted in it, read-only, and answer the mount's fd."""
    fd = syscalls.open_tree(str(path), recursive=True)
    try:
        syscalls.mount_setattr(fd, _SAFE | syscalls.MOUNT_READ_ONLY, recursive=True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def prefer(pid: int, nice: int) -> None:
    """Let one process go before its children, which start at nice 0 again."""
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    os.sched_setscheduler(pid, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))

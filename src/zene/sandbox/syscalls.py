"""The system calls Python has no name for, with errors as OSError.

Numbers from 424 on are the same on every architecture. Nothing here decides anything: `privileged` and
`launcher` say what is done with them.
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Sequence

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOUNT_READ_ONLY = 0x1
MOUNT_NOSUID = 0x2
MOUNT_NODEV = 0x4
MOUNT_NOATIME = 0x10
MOUNT_IDMAP = 0x100000
CLONE_NEWNS = 0x20000

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CREATE = 0, 1, 6
_CLOEXEC = 1  # of fsopen and fsmount

_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
_LOOP_CONFIG_BYTES, _LOOP_FLAGS_OFFSET, _LO_FLAGS_AUTOCLEAR = 304, 60, 4
_LOOP_MAJOR = 7
_EBUSY = 16

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, name: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def _call(name: str, number: int, *args: int | str | bytes | None) -> int:
    values = [
        ctypes.c_long(arg)
        if isinstance(arg, int)
        else os.fsencode(arg)
        if arg is not None
        else None
        for arg in args
    ]
    return _checked(_libc.syscall(ctypes.c_long(number), *values), name)


def setns(fd: int, kind: int) -> None:
    """Enter the namespace; fails for a mount namespace in a process that has several threads."""
    _checked(_libc.setns(fd, kind), "setns")


def prctl(option: int, value: int = 0) -> None:
    """One attribute of the calling process or thread."""
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def open_tree(path: str, *, folder_fd: int = AT_FDCWD, recursive: bool = False) -> int:
    """Clone the mount at `path` as a detached one, and answer its fd."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _call("open_tree", _OPEN_TREE, folder_fd, path, flags | (0 if path else AT_EMPTY_PATH))


def move_mount(mount_fd: int, target: str) -> None:
    """Attach a detached mount at `target` in the mount namespace of the caller."""
    _call("move_mount", _MOVE_MOUNT, mount_fd, "", AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(
    mount_fd: int, attributes: int, *, users_fd: int | None = None, recursive: bool = False
) -> None:
    """Set MOUNT_* on a mount; with `users_fd` also map its owners by that user namespace."""
    mapped = 0 if users_fd is None else MOUNT_IDMAP
    value = struct.pack("QQQQ", attributes | mapped, 0, 0, users_fd or 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", _MOUNT_SETATTR, mount_fd, "", flags, value, len(value))


def mount_detached(kind: str, options: Sequence[tuple[str, str | None]], attributes: int) -> int:
    """Mount a file system that appears nowhere; closing the fd that comes back unmounts it."""
    fs = _call("fsopen", _FSOPEN, kind, _CLOEXEC)
    try:
        for key, value in options:
            how = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            _call("fsconfig", _FSCONFIG, fs, how, key, value, 0)
        _call("fsconfig", _FSCONFIG, fs, _FSCONFIG_CREATE, None, None, 0)
        return _call("fsmount", _FSMOUNT, fs, _CLOEXEC, attributes)
    finally:
        os.close(fs)


def attach_loop(image: str) -> tuple[str, int]:
    """A loop device on the image that frees itself with its last user: its name, and an fd to close.

    The fd keeps the device alive until something is mounted from it.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            device = _free_loop(control)
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, _loop_config(backing))
            except OSError as err:
                os.close(fd)
                if err.errno != _EBUSY:  # another process took the device between the two calls
                    raise
            else:
                return device, fd
    finally:
        os.close(control)
        os.close(backing)


def _free_loop(control: int) -> str:
    number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    device = f"/dev/loop{number}"
    if not os.path.exists(device):  # noqa: PTH110 - a device name, never a path from outside
        os.mknod(device, 0o60660, os.makedev(_LOOP_MAJOR, number))
    return device


def _loop_config(backing: int) -> bytearray:
    config = bytearray(_LOOP_CONFIG_BYTES)
    struct.pack_into("I", config, 0, backing)
    struct.pack_into("I", config, _LOOP_FLAGS_OFFSET, _LO_FLAGS_AUTOCLEAR)
    return config

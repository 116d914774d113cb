"""Opens files that users and agents named, so that no name and no link of theirs leads out of their folder.

The kernel decides while it walks the path (`openat2`); a path that is checked first and opened then can
be changed in between.
"""

import ctypes
import errno
import os
import stat
import struct

from zene.domain.errors import InvalidInput

_OPENAT2 = 437  # the same number on every architecture
_NO_XDEV, _NO_MAGICLINKS, _BENEATH = 0x01, 0x02, 0x08
_RESOLVE = _NO_XDEV | _NO_MAGICLINKS | _BENEATH
_TRIES = 32  # the kernel asks for another try when a folder was moved while it followed ".."
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_long,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
)


def open_beneath(root: int, path: str, flags: int) -> int:
    """A descriptor of `path` below the folder `root`, links followed as long as they stay below.

    Raises OSError: EXDEV where the path leads out. Never waits for the other end of a pipe.
    """
    if not flags & os.O_PATH:  # which the kernel takes with few other flags
        flags |= os.O_NONBLOCK | os.O_NOCTTY
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE)
    code = 0
    for _ in range(_TRIES):
        fd = _libc.syscall(_OPENAT2, root, os.fsencode(path or "."), how, len(how))
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), path)


def open_folder(root: int, path: str) -> int:
    """A folder below `root`, to reach what is in it."""
    return open_beneath(root, path, os.O_PATH | os.O_DIRECTORY)


def open_file(root: int, path: str) -> int:
    """A regular file below `root`, to read. Raises InvalidInput for pipes, sockets, devices and folders."""
    fd = open_beneath(root, path, os.O_RDONLY)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    raise not_a_file(path, mode)


def not_a_file(path: str, mode: int) -> InvalidInput:
    """What to say of a thing that is no regular file."""
    return InvalidInput(f"{path!a} is a {kind_of(mode)}, not a regular file", code="not_a_file")


def kind_of(mode: int) -> str:
    """In words: file, folder, link, or what else has no content of its own."""
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")

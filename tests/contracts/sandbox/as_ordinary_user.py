"""Run a module of Python as an ordinary user, wherever Python and this checkout lie.

Root's Python may be below a folder that only root can enter. So in a mount namespace of its own, each such
folder is replaced by an empty one that shows nothing but what is needed, before the user is changed.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from zene.sandbox import syscalls

UID = 65_001
_PRIVATE = 0x40000 | 0x4000  # MS_PRIVATE | MS_REC


def main() -> None:
    """Become the user and run `python -m` with the arguments."""
    needed = {Path(path) for path in (sys.prefix, sys.base_prefix, Path.cwd())}
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(syscalls.CLONE_NEWNS) or libc.mount(None, b"/", None, _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    _open_up(needed)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])


def _open_up(needed: Iterable[Path]) -> None:
    """Show the needed folders below every closed one."""
    closed = {parent for path in needed for parent in _closed_parents(path)}
    tops = {path for path in closed if not closed & set(path.parents)}
    for top in tops:
        shown = {path: syscalls.open_tree(str(path)) for path in needed if top in path.parents}
        empty = syscalls.mount_detached("tmpfs", [("mode", "0755")], 0)
        syscalls.move_mount(empty, str(top))
        for path, mount in shown.items():
            path.mkdir(parents=True, exist_ok=True)
            syscalls.move_mount(mount, str(path))


def _closed_parents(path: Path) -> list[Path]:
    return [parent for parent in path.parents if not parent.stat().st_mode & 0o001]


if __name__ == "__main__":
    main()

"""Copies an image as it is at one moment, also while it is mounted: `python -m zene.workspaces.snapshot FROM TO`.

Whoever writes to it waits meanwhile, for SECONDS at the most. It is a process of its own, so that whatever
becomes of the one that asked for the copy, the image thaws.
"""

import fcntl
import os
import signal
import sys
from pathlib import Path

from zene.sandbox.privileged import attach_image
from zene.workspaces.images import copy_sparse

SECONDS = 30
TOO_LATE = 3  # the exit code where it takes longer

_FREEZE, _THAW = 0xC0045877, 0xC0045878  # FIFREEZE and FITHAW of linux/fs.h


def main(source: Path, target: Path) -> int:
    """Freeze, copy, thaw."""
    signal.signal(signal.SIGALRM, _give_up)
    mount = attach_image(source)
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    fcntl.ioctl(fd, _FREEZE, 0)
    try:
        signal.alarm(SECONDS)
        copy_sparse(source, target)
        signal.alarm(0)
    except TimeoutError:
        target.unlink()
        return TOO_LATE
    finally:
        fcntl.ioctl(fd, _THAW, 0)
    return 0


def _give_up(number: int, frame: object) -> None:
    del number, frame
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))

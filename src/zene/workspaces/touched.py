"""Whether anything in a workspace was touched since a time: a cheap look before a dear comparison.

The kernel stamps what changes with a time that nobody inside can set (ctime), and a folder with what comes
and goes in it. So a look at the names suffices, and where it would take long it is given up.
"""

import os

MOST_ENTRIES = 20_000  # some 60 ms; a comparison costs less than a longer look
MOST_DEPTH = 100  # open descriptors at a time
_SLACK_NS = 10_000_000  # the kernel's stamps lag behind the clock by a tick
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def was_touched(root: int, since_ms: int) -> bool:
    """Whether anything below the folder `root`, but for git's own, may have changed since then (ms since
    1970). True as well where that cannot be told: too many or too deep folders, or none that may be read.
    """
    try:
        return _Look(since_ms * 1_000_000 - _SLACK_NS).finds(root, ".", 0)
    except OSError:  # it cannot be read, or went away meanwhile
        return True


class _Look:
    def __init__(self, since_ns: int) -> None:
        self._since_ns = since_ns
        self._left = MOST_ENTRIES

    def finds(self, above: int, name: str, depth: int) -> bool:
        """Whether the folder, or anything in it, is newer, or the look is given up."""
        folder = os.open(name, _FLAGS, dir_fd=above)
        try:
            if depth == MOST_DEPTH or os.fstat(folder).st_ctime_ns >= self._since_ns:
                return True
            below: list[str] = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._left -= 1
                    if self._left < 0:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    elif entry.stat(follow_symlinks=False).st_ctime_ns >= self._since_ns:
                        return True
            return any(self.finds(folder, each, depth + 1) for each in below if each != ".git")
        finally:
            os.close(folder)

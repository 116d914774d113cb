"""Host user ids for sandboxes: one at a time each, over all processes and installations of this host.

A lock that the kernel drops with its holder, so that nothing has to be cleaned up after a crash.
"""

import fcntl
import os
from pathlib import Path

from msgspec import Struct

from zene.domain.errors import SandboxUnavailable

FIRST_UID = 200_000
LAST_UID = 999_999
_SUBORDINATE = Path("/etc/subuid")  # ranges that belong to users of this host: never ours
_LOCKS = Path("/run/zene/uids")


class Slot(Struct, frozen=True):
    """A uid that is ours until `release`, which comes after the last process of it."""

    uid: int
    lock_fd: int

    def release(self) -> None:
        """Let others have the uid."""
        os.close(self.lock_fd)


def take_slot() -> Slot:
    """The lowest free uid. Raises SandboxUnavailable when all are taken."""
    _LOCKS.mkdir(parents=True, exist_ok=True)
    taken = _subordinate_ranges()
    for uid in range(FIRST_UID, LAST_UID + 1):
        if any(uid in part for part in taken):
            continue
        fd = os.open(_LOCKS / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
        else:
            return Slot(uid, fd)
    raise SandboxUnavailable("every user id for sandboxes is taken; close some sessions")


def _subordinate_ranges() -> list[range]:
    try:
        lines = _SUBORDINATE.read_text().split()
    except OSError:
        return []
    parts = [line.split(":") for line in lines]
    return [range(int(first), int(first) + int(count)) for _, first, count in parts]

"""The roll: which workers of this data folder live, by locks that the kernel drops with their holders.

So a worker that was killed is known to be dead within a moment, whatever its leases say; only one that hangs
is waited for.
"""

import fcntl
import os
from pathlib import Path


class Roll:
    """One file a worker, locked for its life. `enter` once; all else at any time."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._lock: int | None = None

    def enter(self) -> None:
        """Be on the roll until the process ends, or `leave`. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = self._folder / f".{self._name}"  # so that nobody sees it unlocked
        self._lock = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        making.rename(self._folder / self._name)

    def dead(self) -> list[str]:
        """The workers that have ended, and that nobody has struck off yet."""
        return [
            entry.name
            for entry in self._folder.iterdir()
            if not entry.name.startswith(".") and _is_free(entry)
        ]

    def strike(self, name: str) -> None:
        """Take a dead worker off the roll, once nothing is left of it. Twice is harmless."""
        (self._folder / name).unlink(missing_ok=True)

    def leave(self) -> None:
        """Let others see that this worker has ended. Twice is harmless."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _is_free(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True

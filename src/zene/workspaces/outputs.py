"""Kept outputs: all that a call printed, up to a cap, outside of the agent's reach.

One file an item, only ever appended to and read by offset.
"""

import os
import shutil
from pathlib import Path

from zene.domain.errors import NotFound
from zene.workspaces.storage import checked_name
from zene.workspaces.threads import Threads

MOST_BYTES = 16 << 20


class Outputs:
    """Below `folder`, one folder a session. One writer an item at a time."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most_bytes
        self._threads = Threads("outputs", 2)

    async def append(self, session_id: str, item_id: str, data: bytes) -> int:
        """Keep as much of it as fits; answers how many bytes of it were kept."""
        return await self._threads.run(self._append, self._place(session_id, item_id), data)

    async def read(
        self, session_id: str, item_id: str, offset: int, limit: int
    ) -> tuple[bytes, int]:
        """Bytes from `offset` on, and how many are kept in all. Raises NotFound."""
        place = self._place(session_id, item_id)
        return await self._threads.run(_read, place, max(0, offset), max(0, limit))

    async def delete(self, session_id: str) -> None:
        """Forget a session's outputs; harmless when there are none."""
        folder = self._folder / checked_name(session_id)
        await self._threads.run(shutil.rmtree, folder, ignore_errors=True)

    def close(self) -> None:
        """Wait for what is being written."""
        self._threads.close()

    def _place(self, session_id: str, item_id: str) -> Path:
        return self._folder / checked_name(session_id) / checked_name(item_id)

    def _append(self, place: Path, data: bytes) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(place, flags, 0o600)
        except FileNotFoundError:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(place, flags, 0o600)
        with open(fd, "ab", buffering=0) as file:  # noqa: PTH123 - a descriptor
            room = self._most - os.fstat(fd).st_size
            return file.write(data[:room]) if room > 0 else 0


def _read(place: Path, offset: int, limit: int) -> tuple[bytes, int]:
    try:
        with place.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            return os.pread(file.fileno(), min(limit, total), offset), total
    except FileNotFoundError as err:
        raise NotFound("nothing is kept of this call's output, or not any more") from err

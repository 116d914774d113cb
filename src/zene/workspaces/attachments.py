"""Which workspaces are open: each is attached once, shared by all who use it, and detached with the last.

Attaching an image twice would destroy it, so everything on this host that wants a workspace comes here.
"""

import asyncio
from pathlib import Path

from zene.domain.errors import Conflict
from zene.workspaces.storage import Attached, Storage
from zene.workspaces.threads import Threads, settled

_BUSY_SECONDS = 3.0  # a killed sandbox lets go of its image some 50 ms after it
_BUSY_PAUSE_SECONDS = 0.005


class _Shared:
    """One place, its users, and what they share while there are any."""

    def __init__(self) -> None:
        self.users = 0
        self.turn = asyncio.Lock()  # one attaches or detaches at a time
        self.attached: Attached | None = None


class Attachments:
    """Counts users. Whoever takes a place gives it back exactly once."""

    def __init__(self, storage: Storage, threads: Threads) -> None:
        self._storage = storage
        self._threads = threads
        self._shared: dict[Path, _Shared] = {}

    def is_open(self, place: Path) -> bool:
        """Whether somebody uses it, or waits for it."""
        return place in self._shared

    def is_attached(self, place: Path) -> bool:
        """Whether it is open in this process: for whoever comes then it costs nothing."""
        return place in self._shared and self._shared[place].attached is not None

    async def take(self, place: Path) -> Attached:
        """Attach it, or share what is attached. Raises NotFound, Conflict when it stays busy."""
        shared = self._shared.setdefault(place, _Shared())
        shared.users += 1
        try:
            async with shared.turn:
                if shared.attached is not None:
                    return shared.attached
                return await settled(asyncio.ensure_future(self._attach(place, shared)))
        except BaseException:
            await self.give_back(place)
            raise

    async def give_back(self, place: Path) -> None:
        """Use it no more; the last one detaches it, and it is detached when this returns."""
        shared = self._shared[place]
        shared.users -= 1
        if shared.users == 0:
            await settled(asyncio.ensure_future(self._detach(place, shared)))

    async def close(self) -> None:
        """Detach everything, used or not."""
        for shared in self._shared.values():
            if shared.attached is not None:
                await self._threads.run(shared.attached.close)
        self._shared.clear()

    async def _attach(self, place: Path, shared: _Shared) -> Attached:
        """To its end, even if cancelled meanwhile, or nobody would know of what was attached."""
        deadline = asyncio.get_running_loop().time() + _BUSY_SECONDS
        while True:
            try:
                shared.attached = await self._threads.run(self._storage.attach, place)
            except Conflict:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_BUSY_PAUSE_SECONDS)
            else:
                return shared.attached

    async def _detach(self, place: Path, shared: _Shared) -> None:
        async with shared.turn:
            if shared.users > 0:
                return
            if shared.attached is not None:
                await self._threads.run(shared.attached.close)
                shared.attached = None
            if self._shared.get(place) is shared and shared.users == 0:
                del self._shared[place]

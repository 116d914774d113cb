"""Sandboxes that were started ahead, so that a session need not wait for the 20 ms that a start takes.

Each is empty and nobody's: no folder, no command, a host user of its own. Taking one moves it into the
session's group and its folders into it, in some 2 ms.
"""

import asyncio
from collections.abc import Awaitable, Callable

from zene import telemetry
from zene.domain.errors import SandboxError
from zene.sandbox.base import Spec
from zene.sandbox.machine import Empty

REFILL_PAUSE_SECONDS = 0.05  # whoever has just taken one has the processors to itself
RETRY_SECONDS = 30.0

log = telemetry.logger(__name__)


class Spares:
    """Keeps up to `count` ready of the shape last expected. `start` starts one."""

    def __init__(self, start: Callable[[Spec], Awaitable[Empty]], count: int) -> None:
        self._start = start
        self._count = count
        self._shape: Spec | None = None
        self._ready: list[Empty] = []
        self._wanted = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many are ready."""
        return len(self._ready)

    def expect(self, spec: Spec) -> None:
        """Keep some ready of the spec's shape, for as long as this is not closed."""
        if self._count and self._filling is None:
            self._shape = spec
            self._wanted.set()
            self._filling = asyncio.create_task(self._fill(spec), name="spare sandboxes")

    async def take(self, spec: Spec) -> Empty | None:
        """One of the spec's shape that lives, if there is any; it is the caller's from now on."""
        if self._shape is None or _shape(spec) != _shape(self._shape):
            return None
        self._wanted.set()
        while self._ready:
            empty = self._ready.pop()
            if not empty.is_lost:
                return empty
            await empty.close()
        return None

    async def close(self) -> None:
        """End them all. Twice is harmless."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
            self._filling = None
        while self._ready:
            await self._ready.pop().close()

    async def _fill(self, shape: Spec) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(REFILL_PAUSE_SECONDS)
            while len(self._ready) < self._count:
                try:
                    self._ready.append(await self._start(shape))
                except SandboxError as err:
                    log.warning("sandbox.no_spare", error=err.message)
                    await asyncio.sleep(RETRY_SECONDS)


def _shape(spec: Spec) -> tuple[object, ...]:
    """What cannot be changed once it is started."""
    targets = tuple((folder.target, folder.read_only) for folder in spec.folders)
    return targets, spec.read_only_paths, spec.limits

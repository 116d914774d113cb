"""Workspaces that another worker wants. Each is open in one process only, so whoever claims a session says it,
and a worker that still has the session's workspace open, but no work in it, lets go of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from zene import telemetry
from zene.bus.base import Signal
from zene.domain.errors import ZeneError
from zene.worker.desk import Desk
from zene.worker.serving import Serving

log = telemetry.logger(__name__)


class Releases:
    """`run` must run for anything to be let go. `renew` finds out which leases are lost."""

    def __init__(
        self, desk: Desk, serving: Serving, renew: Callable[[], Awaitable[object]]
    ) -> None:
        self._desk = desk
        self._serving = serving
        self._renew = renew
        self._wanted: set[str] = set()
        self._noted = asyncio.Event()

    async def claim(self, session_id: str) -> None:
        """Say that the session is this worker's now."""
        if not self._desk.workspaces.holds(session_id):
            word = Signal(kind="release", session_id=session_id, worker=self._desk.name)
            await self._desk.bus.signal(word)

    def hear(self, signal: Signal) -> None:
        """Another worker, or this one, has said so. Returns at once."""
        if signal.worker != self._desk.name and self._desk.workspaces.holds(signal.session_id):
            self._wanted.add(signal.session_id)
            self._noted.set()

    async def run(self) -> None:
        """Let go of what is wanted; ended by cancelling."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            wanted, self._wanted = self._wanted, set()
            try:
                await self._renew()
                await asyncio.gather(*map(self._let_go, wanted))
            except ZeneError as err:
                log.warning("workspace.not_let_go", sessions=len(wanted), error=err.message)

    async def _let_go(self, session_id: str) -> None:
        await asyncio.gather(
            self._serving.let_go(session_id), self._desk.benches.let_go(session_id)
        )
        log.info("workspace.let_go", session=session_id)

"""Sweeping: what expires in the store is ended there, by whichever process looks next.

Workers do it each second, and gateways now and then, so that it is done where no worker lives. Every unit
decides by itself, so any number may sweep at once.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from zene import telemetry
from zene.bus.base import Bus, live
from zene.domain.errors import NotFound, ZeneError
from zene.domain.events import Event
from zene.store import approvals, claims, credentials, idempotency, queue
from zene.store.base import Store

SECONDS = 5.0  # between rounds, where nobody else sweeps
GATEWAY_PATIENCE_SECONDS = 5.0
BATCH = 100  # rows one unit looks at
KEPT_SECONDS = 24 * 3600  # idempotency keys
MARK_SECONDS = 30.0  # between looks for sessions whose head is not marked as ready

Swept = Sequence[tuple[str, list[Event]]]

log = telemetry.logger(__name__)


class Sweeping:
    """Ends expired leases and approvals, and forgets what nothing rests on any more. Who cannot kill what runs
    for a lease has `patience_seconds`, in which those come first who can.
    """

    def __init__(self, store: Store, bus: Bus, *, patience_seconds: float = 0) -> None:
        self._store = store
        self._bus = bus
        self._patience_ms = round(patience_seconds * 1000)
        self._mark_at = 0

    async def run(self) -> None:
        """Sweep again and again; ended by cancelling."""
        while True:
            await asyncio.sleep(SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            try:
                await self.round()
            except ZeneError as err:
                log.warning("sweep.failed", error=err.message)

    async def round(self) -> Swept:
        """Once; the sessions whose leases were taken back, with the events of that, which are published."""
        store, now = self._store, time.time_ns() // 1_000_000
        await store.unblock()
        swept = await store.write(
            claims.sweep_leases, expired_before=now - self._patience_ms, now=now, limit=BATCH
        )
        await self.publish(swept)
        await self.publish(await store.write(approvals.expire, now=now, limit=BATCH))
        await store.write(idempotency.forget, before=now - KEPT_SECONDS * 1000, limit=BATCH)
        await store.write(credentials.forget, now=now, limit=BATCH)
        await self._mark(now)
        return swept

    async def publish(self, swept: Iterable[tuple[str, list[Event]]]) -> None:
        """Tell followers what was committed, and workers that there may be something for them."""
        told = False
        for session_id, events in swept:
            await self._bus.publish(session_id, [live(event) for event in events])
            log.info("task.swept", session=session_id)
            told = True
        if told:
            await self._bus.wake()

    async def _mark(self, now: int) -> None:
        if now < self._mark_at:
            return
        self._mark_at = now + round(MARK_SECONDS * 1000)
        for session_id in await self._store.read(queue.unmarked, BATCH):
            with suppress(NotFound):
                await self._store.write(queue.mark, session_id, now)

"""Leases: how a claimed task survives a slow worker and outlives a dead one.

A worker extends its leases while it works, each in a unit of its own: none waits for the task of another. A lease that nobody extends for
`lease_seconds` is taken as proof of death, and its task goes back to the queue from the store. By then its
worker has stopped by itself: see `tenure`.
"""

import asyncio
import time
from collections.abc import Mapping

from zene import telemetry
from zene.domain.tasks import Lease
from zene.store import claims
from zene.worker.desk import Desk, now_ms
from zene.worker.runner import Runner

log = telemetry.logger(__name__)


class Leases:
    """Renews the leases of the running tasks, and stops those that have lost theirs."""

    def __init__(self, desk: Desk, runners: Mapping[Lease, Runner]) -> None:
        self._desk = desk
        self._runners = runners

    async def renew(self) -> float:
        """Extend every lease; seconds until the next time."""
        seconds = self._desk.terms.lease_seconds
        runners = [runner for runner in self._runners.values() if not runner.tenure.is_over]
        ends = await asyncio.gather(*map(self._extend, runners), return_exceptions=True)
        for failed in ends:
            if failed is not None:
                raise failed
        return seconds / 3

    async def _extend(self, runner: Runner) -> None:
        asked_at = time.monotonic()
        if await self._desk.store.write(
            claims.extend,
            runner.lease,
            now=now_ms(),
            lease_seconds=self._desk.terms.lease_seconds,
        ):
            runner.tenure.extend(asked_at)
        elif not runner.is_over:
            log.warning("lease.lost", task=runner.lease.task_id, epoch=runner.lease.epoch)
            self._desk.meters.lost.count()
            runner.lose()

"""Leases: how a claimed task survives a slow worker and outlives a dead one.

A worker extends its leases while it works, all in one unit. A lease that nobody extends for
`lease_seconds` is taken as proof of death, and its task goes back to the queue from the store. By then its
worker has stopped by itself: see `tenure`.
"""

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
        if runners:
            asked_at = time.monotonic()
            held = await self._desk.store.write(
                claims.extend, [r.lease for r in runners], now=now_ms(), lease_seconds=seconds
            )
            kept = set(held)
            for runner in runners:
                if runner.lease in kept:
                    runner.tenure.extend(asked_at)
                elif not runner.is_over:
                    log.warning("lease.lost", task=runner.lease.task_id, epoch=runner.lease.epoch)
                    self._desk.meters.lost.count()
                    runner.lose()
        return seconds / 3

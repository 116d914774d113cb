"""A worker: takes tasks as its slots are free, runs them, and gives back what it cannot finish.

It claims from the store when the bus wakes it, and looks by itself now and then: what the bus loses
costs a moment. The claim that counts is the store's.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from zene import telemetry
from zene.bus.base import Signal, live
from zene.domain.errors import ZeneError
from zene.store import claims
from zene.store.claims import Claim
from zene.worker.changes import Changes
from zene.worker.desk import Desk, now_ms
from zene.worker.jobs import Jobs
from zene.worker.leases import Leases
from zene.worker.runner import Runner
from zene.worker.serving import Serving
from zene.worker.sweep import Sweep
from zene.worker.tenure import Tenure

if TYPE_CHECKING:
    from zene.domain.tasks import Lease

LOOK_SECONDS = 1.0  # how long a submit can stay unseen when its wake-up was lost
GATHER_SECONDS = 0.01  # before a look for few tasks, where many are worked on: more end meanwhile
AGAIN_SECONDS = 0.01  # after a look that found some: first they begin
BEATEN_SECONDS = 0.05  # after a look whose finds other workers took, before the next
PAUSE_SECONDS = 1.0  # after a failed look, before the next

log = telemetry.logger(__name__)


class Worker:
    """Runs until `stop`; `run` may be called once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # A task can be claimed again before its last run here has quite ended.
        self._runners: dict[Lease, Runner] = {}
        self._leases = Leases(desk, self._runners)
        self._sweep = Sweep(desk, self._runners)
        self._jobs = Jobs(desk)
        self._changes = Changes(desk)
        self._serving = Serving(desk.bus, desk.workspaces, desk.outputs)
        self._draining = asyncio.Event()
        desk.meters.slots.set(desk.terms.slots)
        desk.meters.running.ask(lambda: self.running)

    @property
    def name(self) -> str:
        """What its leases say who has them."""
        return self._desk.name

    @property
    def slots(self) -> int:
        """How many tasks it can work on at once."""
        return self._desk.terms.slots

    @property
    def running(self) -> int:
        """How many tasks it works on."""
        return len(self._runners)

    @property
    def _is_nearly_full(self) -> bool:
        return len(self._runners) > self.slots * 3 // 4

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing new."""
        return self._draining.is_set()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Take over what dead predecessors left, then claim and run tasks until `stop` was called."""
        self._desk.roll.enter()
        try:
            await self._run(ready)
        finally:
            self._desk.roll.leave()

    async def _run(self, ready: Callable[[], None]) -> None:
        await self._sweep.begin()
        self._desk.benches.expect()
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(_repeat(work), name=name)
                for name, work in (
                    ("leases", self._leases.renew),
                    ("sweep", self._sweep.tick),
                    ("jobs", self._jobs.tick),
                )
            ]
            helpers.append(group.create_task(self._listen(), name="signals"))
            helpers.append(group.create_task(self._changes.run(), name="changes"))
            helpers.append(group.create_task(self._serving.run(), name="files"))
            ready()
            await self._claim_until_drained(group)
            await self._drain()
            for helper in helpers:
                helper.cancel()
        await self._desk.benches.close()

    async def stop(self) -> None:
        """Take nothing new, hand tasks over, and let `run` return within `drain_seconds`."""
        self._draining.set()
        await self._desk.bus.wake()

    async def _claim_until_drained(self, group: asyncio.TaskGroup) -> None:
        while not self._draining.is_set():
            try:
                if self._is_nearly_full:
                    await asyncio.sleep(GATHER_SECONDS)
                pause_seconds = await self._claim(group)
            except ZeneError as err:
                log.warning("worker.claim_failed", error=err.message)
            except Exception:  # a broken look ends no task: the next one may be whole
                log.exception("worker.claim_broke")
            else:
                await self._desk.bus.wakened(pause_seconds)
                continue
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def _claim(self, group: asyncio.TaskGroup) -> float:
        """Take what is ready; seconds until there is to be looked for more."""
        desk = self._desk
        free = desk.terms.slots - len(self._runners)
        if free <= 0:
            return LOOK_SECONDS
        asked_at = time.monotonic()
        handed_out = await desk.store.write(
            claims.claim,
            worker=desk.name,
            home=desk.home,
            now=now_ms(),
            lease_seconds=desk.terms.lease_seconds,
            limit=free,
            user_cap=desk.terms.max_active_tasks,
        )
        for claim in handed_out.claims:
            await desk.bus.publish(claim.session.id, [live(claim.event)])
            runner = Runner(desk, claim, Tenure(asked_at, desk.terms.lease_seconds))
            self._runners[claim.lease] = runner
            runner.owner = group.create_task(self._work(runner, claim), name=claim.task.id)
        if handed_out.may_be_more:
            return AGAIN_SECONDS if handed_out.claims else BEATEN_SECONDS
        return LOOK_SECONDS

    async def _work(self, runner: Runner, claim: Claim) -> None:
        self._desk.meters.claimed(claim.task)
        try:
            with telemetry.traced(claim.task.trace_id):
                log.info("task.claimed", task=claim.task.id, attempt=claim.task.attempt)
                await runner.run()
            if runner.changed_since_ms is not None:
                self._changes.note(runner.session_id, runner.changed_since_ms)
        except Exception:  # it ends no other run: its lease runs out, and a sweep takes it back
            log.exception("task.left", task=claim.task.id)
        finally:
            del self._runners[claim.lease]
            await self._desk.bus.wake()

    async def _listen(self) -> None:
        async with self._desk.bus.signals() as signals:
            async for signal in signals:
                for runner in list(self._runners.values()):
                    if _is_meant(signal, runner):
                        runner.listen() if signal.kind == "steer" else runner.cancel()

    async def _drain(self) -> None:
        for runner in self._runners.values():
            runner.hand_over()
        try:
            async with asyncio.timeout(self._desk.terms.drain_seconds):
                while self._runners:
                    await self._desk.bus.wakened(0.25)
        except TimeoutError:
            for runner in list(self._runners.values()):
                runner.interrupt()


def _is_meant(signal: Signal, runner: Runner) -> bool:
    """Whether it is about the runner's task; another of its session may have begun meanwhile."""
    if signal.task_id is None:
        return signal.session_id == runner.session_id
    return signal.task_id == runner.lease.task_id


async def _repeat(work: Callable[[], Coroutine[None, None, float]]) -> None:
    """Call `work` for ever; it returns the seconds until it wants to be called again."""
    while True:
        try:
            seconds = await work()
        except ZeneError as err:
            log.warning("worker.look_failed", error=err.message)
            seconds = PAUSE_SECONDS
        except Exception:  # a broken look ends no task: the next one may be whole
            log.exception("worker.look_broke")
            seconds = PAUSE_SECONDS
        await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311

"""The runner: drives the agent's loop through one task, and is the only one that stores what it says.

Each batch is committed and published before the loop is asked for the next. The loop can be left after
any batch, so every way to stop a task (cancel, time limit, lost lease, hand-over) is the same: stop
driving, end the sandbox where its commands may not go on, and write how it ended.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from zene import telemetry
from zene.agent.base import Batch, Limits
from zene.agent.loop import run as run_agent
from zene.domain.errors import LeaseLost, Unavailable, ZeneError
from zene.domain.events import Draft, ErrorBody, Event, StepFinished, TaskFinished
from zene.domain.messages import Usage
from zene.domain.situation import Grant, Granted, Refused, Situation, Unheard
from zene.domain.tasks import Lease, Outcome
from zene.store import claims, history, recording
from zene.store.claims import Claim
from zene.store.recording import Recorded
from zene.tools import TOOLS
from zene.worker.asides import Asides
from zene.worker.benches import Bench
from zene.worker.desk import Desk, now_ms
from zene.worker.live import Publisher
from zene.worker.meters import TaskMeters
from zene.worker.operations import TaskOperations
from zene.worker.shortage import resume_waiting
from zene.worker.tenure import HeldBench, Tenure
from zene.worker.words import tell_user

if TYPE_CHECKING:
    from zene.llm.base import Provider

Ending = Literal["cancelled", "timed_out", "lost", "handed_over"]
RETRY_SECONDS = 0.5
WARM_UP_PAUSE_SECONDS = 0.005

log = telemetry.logger(__name__)


class Runner:
    """One task from its claim to its last event, or to somebody else's hands."""

    def __init__(self, desk: Desk, claim: Claim, tenure: Tenure) -> None:
        self.lease: Lease = claim.lease
        self.tenure = tenure
        self.session_id = claim.session.id
        self.owner: asyncio.Task[None] | None = None
        self._desk = desk
        self._claim = claim
        self._task = claim.task
        self._model: Provider | None = None
        self._operations: TaskOperations | None = None
        self._publisher = Publisher(desk.bus, claim.session.id, is_silenced=lambda: tenure.is_over)
        self._ending: Ending | None = None
        self._error: ErrorBody | None = None
        self._work: asyncio.Task[None] | None = None
        self._commits: asyncio.Task[Recorded] | None = None
        self._batches = 0
        self._begun = asyncio.Event()
        self._is_cancelled = False  # by the store, before the word of it was here
        self._handing_over = False
        self._is_spoken_to = not claim.is_first  # or may have been, before this run
        self._began_ms = now_ms()
        self._asides = Asides(claim.task)
        self._meters = TaskMeters(desk.meters, claim.task)

    @property
    def changed_since_ms(self) -> int | None:
        """Since when its calls may have changed files; None where they have not, or another run will tell."""
        gone_on = self._ending in ("lost", "handed_over")
        return None if gone_on else self._asides.changed_since_ms

    @property
    def is_over(self) -> bool:
        """Whether the task has ended or is about to."""
        return self._ending is not None or (self._work is not None and self._work.done())

    def cancel(self) -> None:
        """End the task as cancelled."""
        self._stop("cancelled")

    def listen(self) -> None:
        """Hear before the next step what the user has said."""
        self._is_spoken_to = True
        if self._operations is not None:
            self._operations.listen()

    def lose(self) -> None:
        """Stop at once: somebody else owns the task."""
        self._stop("lost")

    def interrupt(self) -> None:
        """Hand the task over now, in the middle of whatever it does."""
        self._stop("handed_over")

    def hand_over(self) -> None:
        """Hand the task over after its next batch."""
        self._handing_over = True

    async def run(self) -> None:
        """Drive the task. Raises nothing but CancelledError."""
        async with self._desk.benches.use(self._claim.session, self.lease.epoch) as bench:
            self._asides.listen(bench.news)
            async with asyncio.TaskGroup() as scope:
                helpers = [
                    scope.create_task(self._publisher.run()),
                    scope.create_task(self._warm_up(bench)),
                    scope.create_task(self._watch()),
                ]
                self._work = scope.create_task(self._drive(bench))
                if self._ending is not None:
                    self._work.cancel()
                await asyncio.wait([self._work])
                for helper in helpers:
                    helper.cancel()
            await self._end(bench)

    def _stop(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            if self._work is not None:
                self._work.cancel()

    async def _watch(self) -> None:
        """Stop at once when the lease runs out: who could not extend it has lost it."""
        await self.tenure.ended()
        log.warning("lease.ran_out", task=self.lease.task_id, epoch=self.lease.epoch)
        self.lose()

    async def _warm_up(self, bench: Bench) -> None:
        """While the model is thinking, and only then: mounting would keep the first commit waiting, and what a
        model says at once. A command that comes sooner begins it itself.
        """
        if not bench.is_ready:
            self._asides.phase("preparing")
        await self._begun.wait()
        await asyncio.sleep(WARM_UP_PAUSE_SECONDS)
        try:
            await HeldBench(bench, self.tenure).warm_up()
        except ZeneError as err:
            log.warning("sandbox.not_warm", task=self.lease.task_id, error=err.message)
        else:
            self._asides.phase("ready")

    async def _drive(self, bench: Bench) -> None:
        seconds = max(self._deadline_ms() - now_ms(), 0) / 1000
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._steps(bench)
        except TimeoutError:
            if not limit.expired():
                raise
            self._ending = self._ending or "timed_out"
        except LeaseLost:
            self._ending = "lost"
        except (
            Unavailable
        ) as err:  # the store, for longer than the lease lasts: whoever comes next goes on
            log.warning("task.let_go", task=self.lease.task_id, error=err.message)
            self._ending = self._ending or "lost"
        except ZeneError as err:
            self._error = ErrorBody(code=err.code, message=err.message)
        except Exception as err:  # the runner's edge: whatever it is, the task ends
            log.exception("task.broke", task=self.lease.task_id)
            self._error = ErrorBody(
                code="internal", message=f"Zene failed inside ({type(err).__name__}); see its log."
            )

    async def _steps(self, bench: Bench) -> None:
        desk = self._desk
        model = self._model = desk.model(self._task.model)
        situation = await self._situation()
        self._operations = operations = TaskOperations(
            desk, self.lease, HeldBench(bench, self.tenure), self._publisher
        )
        if self._is_spoken_to:
            operations.listen()
        loop = run_agent(
            situation,
            model=model,
            tools=TOOLS,
            ops=operations,
            limits=Limits(steps=desk.terms.max_steps, deadline_ms=self._deadline_ms()),
        )
        async with aclosing(loop):
            grant: Grant | None = None
            while (batch := await _next(loop, grant)) is not None:
                grant = await self._commit(batch)
                if isinstance(grant, Granted):
                    self._begun.set()
                if isinstance(grant, Unheard):
                    operations.listen()
                elif batch.is_last or grant == Refused("exhausted"):
                    return
                self.tenure.check()  # what the loop does next has an effect
                if self._handing_over:
                    self._ending = self._ending or "handed_over"
                    return

    async def _situation(self) -> Situation:
        claim, store = self._claim, self._desk.store
        situation = await store.read(
            history.situation, claim.task, claim.session.approval_policy, claim.history_from
        )
        if claim.is_first:
            return situation
        return replace(situation, approvals=await store.read(history.asked, claim.task.id))

    async def _commit(self, batch: Batch) -> Grant | None:
        """Commit and publish. A cancel in the middle loses neither: `_end` waits for both."""
        self._commits = asyncio.create_task(self._record(batch))
        recorded = await asyncio.shield(self._commits)
        return recorded.grant

    async def _record(self, batch: Batch) -> Recorded:
        recorded = await self._patiently(batch)
        with self._desk.meters.publish.timed():
            await self._publisher.events(recorded.events, self._asides.usage(batch))
        self._is_cancelled = self._is_cancelled or any(map(_says_cancelled, recorded.events))
        await tell_user(self._desk.bus, self.lease.user_id, recorded)
        if recorded.is_short:
            await self._resume_waiting()
        return recorded

    async def _resume_waiting(self) -> None:
        """Look after the user's tasks that wait for tokens; what fails here the sweep does."""
        try:
            await resume_waiting(self._desk, self.lease.user_id)
        except ZeneError as err:
            log.warning("quota.not_resumed", user=self.lease.user_id, error=err.message)

    async def _patiently(self, batch: Batch) -> Recorded:
        """Record the batch; a store that is away is waited for as long as a lease lasts. It may have recorded it
        without our being told, and then knows it by its number.
        """
        self._batches += 1
        drafts = self._asides.with_news(batch)
        with self._desk.meters.append.timed():
            recorded = await self._written(batch, drafts)
        self._meters.recorded(recorded.events)
        return recorded

    async def _written(self, batch: Batch, drafts: Sequence[Draft]) -> Recorded:
        while True:
            try:
                async with self._turn(batch):
                    return await self._desk.store.write_together(
                        recording.apart(self.lease, drafts, batch.reserve),
                        recording.record,
                        self.lease,
                        drafts,
                        batch_id=f"{self.lease.epoch}.{self._batches}",
                        begins=self._batches == 1,
                        intents=batch.intents,
                        reserve=batch.reserve,
                        output_cap=self._model.info.output_cap if self._model else 0,
                        now=now_ms(),
                        worked_ms=self._worked_ms(),
                    )
            except Unavailable:
                self.tenure.check()
                await asyncio.sleep(RETRY_SECONDS)

    def _turn(self, batch: Batch) -> AbstractAsyncContextManager[None]:
        """The user's, for what begins or ends a model call."""
        settles = any(isinstance(draft.body, StepFinished) for draft in batch.drafts)
        if batch.reserve is None and not settles:
            return nullcontext()
        return self._desk.turns.of(self.lease.user_id)

    def _deadline_ms(self) -> int:
        allowed = int(self._desk.terms.max_work_seconds * 1000)
        return self._began_ms + allowed - self._task.worked_ms

    def _worked_ms(self) -> int:
        return now_ms() - self._began_ms

    async def _end(self, bench: Bench) -> None:
        """Write how it ended, unless the loop has; by then nothing of it is being committed."""
        if self._commits is not None:
            await asyncio.gather(self._commits, return_exceptions=True)
        if self._is_cancelled:
            await bench.kill()
        if self._ending is None and self._error is None:
            return
        try:
            await self._write_end(bench)
        except LeaseLost:
            log.info("task.already_taken", task=self.lease.task_id)
        except ZeneError as err:
            log.warning("task.end_not_written", task=self.lease.task_id, error=err.message)

    async def _write_end(self, bench: Bench) -> None:
        if self._ending is not None:
            await bench.kill()
        events: list[Event] = []
        if self._ending == "handed_over":
            events = await self._desk.store.write(
                claims.hand_over, self.lease, now=now_ms(), worked_ms=self._worked_ms()
            )
            self._meters.recorded(events)
        elif self._ending != "lost":
            outcome: Outcome = self._ending or "failed"
            events = list((await self._patiently(_finish(self.lease, outcome, self._error))).events)
        await self._publisher.events(events)


async def _next(loop: AsyncGenerator[Batch, Grant | None], grant: Grant | None) -> Batch | None:
    try:
        return await loop.asend(grant)
    except StopAsyncIteration:
        return None


def _says_cancelled(event: Event) -> bool:
    if event.type != TaskFinished.type:
        return False
    return msgspec.json.decode(event.data, type=TaskFinished).outcome == "cancelled"


def _finish(lease: Lease, outcome: Outcome, error: ErrorBody | None) -> Batch:
    end = TaskFinished(outcome=outcome, error=error, usage=Usage())
    return Batch(drafts=(Draft(body=end, task_id=lease.task_id),))

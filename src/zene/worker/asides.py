"""What a runner says of a task beside the loop: how far its sandbox is, and what it has used by now.

Neither costs a commit: news wait for the next batch and come first in it, and usage is fleeting. What is
lost with the process does not matter, since the next run makes its own.
"""

from zene.agent.base import Batch
from zene.domain.events import (
    Body,
    Draft,
    Phase,
    StepFinished,
    TaskFinished,
    TaskPhase,
    UsageUpdated,
)
from zene.domain.tasks import Task
from zene.worker.changes import may_change
from zene.worker.desk import now_ms


class Asides:
    """Those of one run. `changed_since_ms` is when the first call began that may change a file, if one has."""

    def __init__(self, task: Task) -> None:
        self._news: list[Body] = []
        self.changed_since_ms = task.started_at if task.steps else None
        self._task_id = task.id
        self._began_ms = now_ms()
        self._used = UsageUpdated(usage=task.usage, cost=task.cost)

    def listen(self, news: list[Body]) -> None:
        """Share the bench's news of its sandbox; how far it was for an earlier task is not for this one."""
        self._news = news
        news[:] = [body for body in news if not isinstance(body, TaskPhase)]

    def phase(self, phase: Phase) -> None:
        """Say how far the preparations are."""
        self._news.append(TaskPhase(phase=phase, ms=now_ms() - self._began_ms))

    def with_news(self, batch: Batch) -> list[Draft]:
        """The batch's drafts after the news, which are told with that."""
        drafts = [*map(self._draft, self._news), *batch.drafts]
        self._news.clear()
        if self.changed_since_ms is None and may_change(batch.drafts):
            self.changed_since_ms = now_ms()
        return drafts

    def usage(self, batch: Batch) -> Draft | None:
        """What the task has used, once the batch has settled a model call and does not say it itself."""
        before = self._used
        for draft in batch.drafts:
            if isinstance(draft.body, StepFinished):
                self._used = self._used.plus(draft.body)
        is_told = any(isinstance(draft.body, TaskFinished) for draft in batch.drafts[-1:])
        return None if is_told or self._used is before else self._draft(self._used)

    def _draft(self, body: Body) -> Draft:
        return Draft(body=body, task_id=self._task_id)

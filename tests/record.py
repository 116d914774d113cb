"""What a store would hold of a session, built from the batches alone, and the situation it would hand back.

It also refuses what a store must never be told: an item completed twice, an intent for a call that has a
result, anything after the end.
"""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from zene.agent.base import Batch
from zene.domain.approvals import Approval, ApprovalStatus, arguments_hash
from zene.domain.events import (
    ApprovalRequested,
    Body,
    Draft,
    ItemCompleted,
    ItemStarted,
    StepFinished,
    StepStarted,
    TaskFinished,
    TaskWaiting,
)
from zene.domain.messages import Compaction, Item, ToolCall, Usage
from zene.domain.quotas import EXHAUSTED
from zene.domain.sessions import ApprovalPolicy
from zene.domain.situation import Grant, Granted, Refused, Situation, Unheard
from zene.domain.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable


def new_task(prompt: str = "Mend it.", **changes: object) -> Task:
    """A task as it is when it was submitted."""
    task = Task(
        id="tsk_1",
        session_id="ses_1",
        user_id="usr_1",
        prompt=prompt,
        model="scripted",
        effort=None,
        status="running",
        waiting_on=None,
        attempt=1,
        outcome=None,
        error=None,
        usage=Usage(),
        cost=None,
        max_tokens_total=None,
        priority=0,
        steps=0,
        worked_ms=0,
        trace_id=None,
        created_at=0,
        started_at=0,
        finished_at=None,
    )
    return replace(task, **changes)


class Record:
    """One session and its task at work."""

    def __init__(self, task: Task | None = None, policy: ApprovalPolicy = "auto") -> None:
        self.task = task or new_task()
        self.policy = policy
        self.bodies: list[Body] = []
        self.batches: list[Batch] = []
        self.items: dict[str, Item | None] = {}
        self.open: dict[str, str] = {}
        self.begun: set[str] = set()
        self.approvals: dict[str, Approval] = {}
        self.rules: set[str] = set()
        self.end: TaskFinished | TaskWaiting | None = None
        self.grant: Callable[[int], Grant] = lambda _: Granted(16_384)
        self.finished_steps = 0
        self.unheard: dict[str, str] = {}
        self._step = 0
        self._usage = Usage()
        self._counted: tuple[int, int] | None = None
        self._covered = 0

    @property
    def finished(self) -> TaskFinished:
        assert isinstance(self.end, TaskFinished)
        return self.end

    @property
    def calls(self) -> dict[str, ToolCall]:
        """Every call, by item id."""
        return {
            item_id: item.content
            for item_id, item in self.items.items()
            if item and isinstance(item.content, ToolCall)
        }

    def of(self, kind: type[Body]) -> list[Body]:
        """Every event of a kind."""
        return [body for body in self.bodies if isinstance(body, kind)]

    def completed(self, kind: str) -> list[ItemCompleted]:
        """Every completed item of a kind."""
        return [b for b in self.bodies if isinstance(b, ItemCompleted) and b.kind == kind]

    def commit(self, batch: Batch) -> Grant | None:
        """What `record(...)` of the store does."""
        assert self.end is None, "nothing comes after the end"
        assert batch.drafts or batch.intents, "an empty batch costs a commit"
        self.batches.append(batch)
        for draft in batch.drafts:
            if isinstance(draft.body, StepStarted):
                assert batch.reserve is not None
                assert draft is batch.drafts[-1]
                grant = self.grant(batch.reserve)
                if grant == Refused("exhausted"):
                    end = TaskFinished(
                        outcome="budget_exhausted", error=EXHAUSTED, usage=self._usage
                    )
                    self._apply(Draft(body=end))
                if isinstance(grant, Refused):
                    return grant
                self._apply(draft)
                return grant
            is_success = isinstance(draft.body, TaskFinished) and draft.body.outcome == "succeeded"
            if is_success and self.unheard:
                return Unheard()
            self._apply(draft)
        for item_id in batch.intents:
            self._begin(item_id)
        return None

    def situation(self) -> Situation:
        """What the next run starts from. Text that was open when the last one died is discarded."""
        for item_id, kind in list(self.open.items()):
            if self.items[item_id] is None:
                self._apply(
                    Draft(
                        body=ItemCompleted(item_id=item_id, kind=kind, status="discarded"),  # type: ignore[arg-type] # as it was started
                        item_id=item_id,
                    )
                )
        return Situation(
            task=self.task,
            policy=self.policy,
            items=self._history(),
            begun=frozenset(self.begun & self.open.keys()),
            approvals=dict(self.approvals),
            rules=frozenset(self.rules),
            step=self._step,
            usage=self._usage,
            counted=self._counted,
        )

    def decide(self, status: ApprovalStatus, note: str = "") -> None:
        """Answer whatever is asked, so that the task goes on."""
        assert isinstance(self.end, TaskWaiting)
        for item_id, approval in self.approvals.items():
            if approval.status == "pending":
                self.approvals[item_id] = replace(approval, status=status, note=note)
        self.end = None

    def resume(self) -> None:
        """The task is queued and claimed again."""
        self.end = None

    def _history(self) -> list[Item]:
        items = [item for item in self.items.values() if item is not None]
        last = max(
            (at for at, it in enumerate(items) if isinstance(it.content, Compaction)), default=0
        )
        return items[last:]

    def _begin(self, item_id: str) -> None:
        assert item_id in self.open
        assert item_id not in self.begun, "an intent is committed once"
        approval = self.approvals.get(item_id)
        assert approval is None or approval.status == "allowed"
        self.begun.add(item_id)

    def _apply(self, draft: Draft) -> None:
        body = draft.body
        self.bodies.append(body)
        match body:
            case ItemStarted(item_id=item_id, kind=kind):
                assert item_id not in self.items, "an item is started once"
                self.open[item_id] = kind
                self.items[item_id] = self._item(draft)
            case ItemCompleted(item_id=item_id, status=status):
                assert self.open.pop(item_id) == body.kind
                assert (draft.content is None) == (status == "discarded")
                step = self.items[item_id]
                self.items[item_id] = self._item(draft, step.step if step else None)
                self.unheard.pop(item_id, None)
                if isinstance(draft.content, Compaction):
                    self._counted = None
                    self._covered = -1
            case StepStarted():
                self._step += 1
                self._covered = len(self._history())
            case StepFinished(usage=usage):
                self.finished_steps += 1
                self._usage = self._usage + usage
                if usage.input_tokens and self._covered >= 0:
                    self._counted = (usage.input_tokens, self._covered)
            case ApprovalRequested():
                self.approvals[body.item_id] = self._approval(body)
            case TaskFinished() | TaskWaiting():
                self.end = body
            case _:
                pass

    def _item(self, draft: Draft, step: int | None = None) -> Item | None:
        if draft.content is None or draft.item_id is None:
            return None
        own = self._step if step is None else step
        return Item(id=draft.item_id, task_id=self.task.id, step=own, content=draft.content)

    def _approval(self, body: ApprovalRequested) -> Approval:
        item = self.items[body.item_id]
        assert item is not None
        assert isinstance(item.content, ToolCall)
        return Approval(
            id=body.approval_id,
            session_id="ses_1",
            task_id="tsk_1",
            item_id=body.item_id,
            name=body.name,
            arguments=item.content.arguments,
            arguments_hash=arguments_hash(item.content.name, item.content.arguments),
            summary=body.summary,
            risk=body.risk,
            status="pending",
            scope=None,
            note="",
            decided_by=None,
            created_at=0,
            decided_at=None,
            expires_at=0,
        )

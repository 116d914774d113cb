"""Events: what everyone sees of a session. A closed union; `match` on the class and let the checker prove it.

Durable events have a `seq` in their session's log. Those in `FLEETING` are never stored, take no `seq`
of their own and carry the last durable one.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import msgspec
from msgspec import Raw, Struct

from zene.domain.messages import Content, Usage

ItemKind = Literal[
    "user_message", "message", "reasoning", "tool_call", "command", "file_change", "plan",
    "question", "compaction", "notice",
]  # fmt: skip
CALL_KINDS: frozenset[str] = frozenset({"tool_call", "command", "file_change", "plan", "question"})
Phase = Literal["preparing", "ready"]
ItemStatus = Literal["completed", "discarded", "succeeded", "failed", "denied", "interrupted"]


class _Body(Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str]


class SessionCreated(_Body, frozen=True, kw_only=True):
    """A session began."""

    type = "session.created"
    title: str
    project_id: str | None = None
    model: str


class SessionUpdated(_Body, frozen=True, kw_only=True):
    """Its title or settings changed; only what changed is set."""

    type = "session.updated"
    title: str | None = None
    model: str | None = None
    effort: str | None = None
    approval_policy: str | None = None


class SessionDeleted(_Body, frozen=True, kw_only=True):
    """It was deleted: the last event of a log, published and then gone with the rest."""

    type = "session.deleted"


class TaskQueued(_Body, frozen=True, kw_only=True):
    """A task was accepted; `position` is its place in the queue, 0 when it is next; `trace_id` finds the log lines
    of its work.
    """

    type = "task.queued"
    prompt: str
    position: int = 0
    trace_id: str | None = None


class TaskUpdated(_Body, frozen=True, kw_only=True):
    """It was changed before it was ever started; only what changed is set. `position` is its new place."""

    type = "task.updated"
    prompt: str | None = None
    model: str | None = None
    effort: str | None = None
    priority: int | None = None
    max_tokens_total: int | None = None
    position: int | None = None


class TaskStarted(_Body, frozen=True, kw_only=True):
    """A worker took it."""

    type = "task.started"
    attempt: int
    worker: str
    trace_id: str | None = None


class TaskPhase(_Body, frozen=True, kw_only=True):
    """How far its workspace and sandbox are, `ms` after its worker took it. One that ends before they are
    ready never says so; one that is taken again says it again.
    """

    type = "task.phase"
    phase: Phase
    ms: int


class TaskWaiting(_Body, frozen=True, kw_only=True):
    """It waits and holds no worker."""

    type = "task.waiting"
    on: Literal["approval", "input", "quota", "pause"]


class TaskResumed(_Body, frozen=True, kw_only=True):
    """It is queued again; `reason` is approval, hand_over, lease_expired, quota or pause."""

    type = "task.resumed"
    reason: str


class ErrorBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why it ended so."""

    code: str
    message: str
    retryable: bool = False


class TaskFinished(_Body, frozen=True, kw_only=True):
    """The one end of a task. `cost` is in US dollars, absent where the model has no price."""

    type = "task.finished"
    outcome: Literal["succeeded", "failed", "cancelled", "budget_exhausted", "timed_out"]
    error: ErrorBody | None = None
    usage: Usage
    cost: float | None = None


class StepStarted(_Body, frozen=True, kw_only=True):
    """A model call begins."""

    type = "step.started"
    model: str


class StepRetry(_Body, frozen=True, kw_only=True):
    """It failed before its first output and is made again."""

    type = "step.retry"
    attempt: int
    delay_ms: int
    reason: str


class StepFinished(_Body, frozen=True, kw_only=True):
    """It ended. `stop_reason` is end, tool_calls, length, refusal, cancelled or error."""

    type = "step.finished"
    stop_reason: str
    usage: Usage
    cost: float | None = None


class ItemStarted(_Body, frozen=True, kw_only=True):
    """An item began; for calls with name and whole arguments."""

    type = "item.started"
    item_id: str
    kind: ItemKind
    call_id: str | None = None
    name: str | None = None
    arguments: Raw | None = None


class ItemDelta(_Body, frozen=True, kw_only=True):
    """Fleeting: the text of the item from `offset` (Unicode code points) on is replaced by this."""

    type = "item.delta"
    item_id: str
    kind: ItemKind
    offset: int
    text: str
    stream: str | None = None


class ItemCompleted(_Body, frozen=True, kw_only=True):
    """The authoritative end of an item. Messages have `text`; calls name, arguments, output and more."""

    type = "item.completed"
    item_id: str
    kind: ItemKind
    status: ItemStatus
    text: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Raw | None = None
    output: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    path: str | None = None
    plan: list["PlanEntry"] | None = None


class PlanEntry(Struct, frozen=True, kw_only=True):
    """A line of the visible todo list."""

    text: str
    status: Literal["pending", "in_progress", "completed"]


class ApprovalRequested(_Body, frozen=True, kw_only=True):
    """A call waits for a person."""

    type = "approval.requested"
    approval_id: str
    item_id: str
    name: str
    arguments: Raw
    summary: str
    risk: Literal["low", "medium", "high"]
    expires_at: str


class ApprovalWanted(_Body, frozen=True, kw_only=True):
    """Fleeting, on the streams of the user's other sessions: a call in the session `session_id` waits for an answer."""

    type = "approval.wanted"
    approval_id: str
    session_id: str
    name: str
    summary: str
    expires_at: str


class ApprovalDecided(_Body, frozen=True, kw_only=True):
    """A person answered."""

    type = "approval.decided"
    approval_id: str
    decision: Literal["allow", "deny"]
    scope: Literal["once", "session"]
    by: str
    note: str = ""


class ApprovalExpired(_Body, frozen=True, kw_only=True):
    """Nobody answered in time, or the task ended first."""

    type = "approval.expired"
    approval_id: str


class ChangedFile(Struct, frozen=True, kw_only=True):
    """A file that differs from the baseline, with its added and removed lines."""

    path: str
    added: int
    removed: int


class DiffUpdated(_Body, frozen=True, kw_only=True):
    """What the whole session changed, told soon after a task ended or began to wait where that is not what was
    told last: totals, and the first files by path. One that a crash loses is made up for by the next.
    """

    type = "diff.updated"
    files: Sequence[ChangedFile]
    more_files: int = 0
    added: int
    removed: int


class SandboxState(_Body, frozen=True, kw_only=True):
    """The sandbox was started (in `ms`), had something in it killed for want of memory, or is gone: it `ended`,
    or was `killed` with all in it. One that is dropped because nobody uses it goes unsaid.
    """

    type = "sandbox.state"
    state: Literal["started", "out_of_memory", "gone"]
    reason: Literal["ended", "killed"] | None = None
    ms: int | None = None


class QueueChanged(_Body, frozen=True, kw_only=True):
    """Fleeting, at most once a second: how many of the session's tasks are before this queued one now."""

    type = "queue.changed"
    position: int


class UsageUpdated(_Body, frozen=True, kw_only=True):
    """Fleeting, after a model call: what the task has used so far."""

    type = "usage.updated"
    usage: Usage
    cost: float | None = None

    def plus(self, step: StepFinished) -> "UsageUpdated":
        """After one more call."""
        cost = self.cost if step.cost is None else (self.cost or 0.0) + step.cost
        return UsageUpdated(usage=self.usage + step.usage, cost=cost)


class QuotaUpdated(_Body, frozen=True, kw_only=True):
    """Fleeting, on each of a user's streams, after a model call of a user who has a quota: the tokens that all of
    the user's tasks have used in its period, and those that open model calls have reserved.
    """

    type = "quota.updated"
    used: int
    reserved: int
    limit: int


class Snapshot(_Body, frozen=True, kw_only=True):
    """Fleeting: the session's state at `seq`, for late joiners and cursors that cannot be followed."""

    type = "snapshot"
    seq: int
    state: Raw


Body = (
    SessionCreated | SessionUpdated | SessionDeleted | TaskQueued | TaskUpdated
    | TaskStarted | TaskPhase | TaskWaiting | TaskResumed | TaskFinished | StepStarted | StepRetry | StepFinished
    | ItemStarted | ItemDelta | ItemCompleted | ApprovalRequested | ApprovalDecided
    | ApprovalWanted | ApprovalExpired | DiffUpdated | SandboxState | QueueChanged | UsageUpdated
    | QuotaUpdated | Snapshot
)  # fmt: skip

TYPES: dict[str, type[Body]] = {body.type: body for body in get_args(Body)}
FLEETING: frozenset[str] = frozenset(
    {
        "item.delta",
        "queue.changed",
        "usage.updated",
        "quota.updated",
        "approval.wanted",
        "snapshot",
    }
)


class Draft(Struct, frozen=True, kw_only=True):
    """An event before it has a place in the log. `content` is what the history keeps of
    an item: set on ItemCompleted, and on the ItemStarted of a call (its result still None).
    """

    body: Body
    task_id: str | None = None
    step: int | None = None
    item_id: str | None = None
    content: Content | None = None


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope as clients get it. `ts` is RFC 3339 in UTC with milliseconds."""

    v: int
    seq: int
    ts: str
    session_id: str
    task_id: str | None = None
    step: int | None = None
    item_id: str | None = None
    type: str
    data: Raw


_encoder = msgspec.json.Encoder()


def as_json(text: str) -> Raw:
    """JSON text as it is, where it is valid JSON; else the text as a JSON string (bad tool arguments)."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Raw(_encoder.encode(text))
    return Raw(text.encode())


def envelope(draft: Draft, *, session_id: str, seq: int, ts: str) -> Event:
    """The event as it stands in the log once `seq` has been given out."""
    return Event(
        v=1,
        seq=seq,
        ts=ts,
        session_id=session_id,
        task_id=draft.task_id,
        step=draft.step,
        item_id=draft.item_id,
        type=draft.body.type,
        data=Raw(_encoder.encode(draft.body)),
    )

"""Tasks: one request to the agent inside a session, and the one table of what may become of it.

    queued → preparing → running → waiting → queued …
    every unfinished status → finished;  preparing, running → cancelling → finished;  preparing, running → queued

Nothing leaves `finished`. The store enforces the table by conditional UPDATEs that name `FROM[target]`.
"""

from typing import Literal

from msgspec import Struct

from zene.domain.messages import Usage

Status = Literal["queued", "preparing", "running", "waiting", "cancelling", "finished"]
Outcome = Literal["succeeded", "failed", "cancelled", "budget_exhausted", "timed_out"]
WaitingOn = Literal["approval", "input", "quota", "pause"]
OnBusy = Literal["enqueue", "interrupt", "reject"]  # what a submit does in a session that works

FROM: dict[Status, tuple[Status, ...]] = {
    "preparing": ("queued",),
    "running": ("preparing",),
    "waiting": ("preparing", "running"),
    "queued": ("waiting", "preparing", "running"),
    "cancelling": ("preparing", "running"),
    "finished": ("queued", "waiting", "preparing", "running", "cancelling"),
}

POISON_ATTEMPTS = 3  # lease losses in a row without a completed step


class TaskError(Struct, frozen=True, kw_only=True):
    """Why a task did not succeed."""

    code: str
    message: str
    retryable: bool = False


class Task(Struct, frozen=True, kw_only=True):
    """One request. `attempt` counts from 1 and grows when a lease is lost; of what a user has queued, the
    higher `priority` goes first; times are ms since 1970. `trace_id` is that
    of the request that submitted it.
    """

    id: str
    session_id: str
    user_id: str
    prompt: str
    model: str
    effort: str | None
    status: Status
    waiting_on: WaitingOn | None
    attempt: int
    outcome: Outcome | None
    error: TaskError | None
    usage: Usage
    cost: float | None
    max_tokens_total: int | None
    priority: int
    steps: int
    worked_ms: int
    trace_id: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class Lease(Struct, frozen=True, kw_only=True):
    """A worker's claim on a task. Every durable write carries the epoch; an old one is refused."""

    worker: str
    session_id: str
    task_id: str
    user_id: str
    epoch: int

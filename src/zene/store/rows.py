"""Rows of several subjects as the domain's values: which columns are read, and what they become."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, case, select

from zene.domain.approvals import Approval
from zene.domain.messages import Usage
from zene.domain.sessions import Session, SessionStatus
from zene.domain.tasks import Task, TaskError
from zene.store.base import Row
from zene.store.schema import approvals, sessions, tasks

USAGE_NAMES = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "estimated",
)

TASK_USAGE: tuple[ColumnElement[Any], ...] = tuple(tasks.c[name] for name in USAGE_NAMES)

TASK: tuple[ColumnElement[Any], ...] = (
    *TASK_USAGE,
    tasks.c.id,
    tasks.c.session_id,
    tasks.c.user_id,
    tasks.c.prompt,
    tasks.c.model,
    tasks.c.effort,
    tasks.c.status,
    tasks.c.waiting_on,
    tasks.c.attempt,
    tasks.c.outcome,
    tasks.c.error,
    tasks.c.cost,
    tasks.c.max_tokens_total,
    tasks.c.priority,
    tasks.c.steps,
    tasks.c.worked_ms,
    tasks.c.trace_id,
    tasks.c.created_at,
    tasks.c.started_at,
    tasks.c.finished_at,
)

_unfinished = tasks.alias("unfinished")
_last = tasks.alias("last")

SESSION: tuple[ColumnElement[Any], ...] = (
    sessions.c.id,
    sessions.c.user_id,
    sessions.c.project_id,
    sessions.c.title,
    sessions.c.model,
    sessions.c.effort,
    sessions.c.approval_policy,
    sessions.c.last_seq,
    sessions.c.created_at,
    sessions.c.updated_at,
)

# Of the oldest unfinished task, the only one that can be worked on, or of the last one's outcome.
SESSION_STATUS: tuple[ColumnElement[Any], ...] = (
    select(
        case(
            (and_(_unfinished.c.status == "waiting", _unfinished.c.waiting_on != "quota"), "waits"),
            else_=_unfinished.c.status,
        )
    )
    .where(_unfinished.c.session_id == sessions.c.id, _unfinished.c.status != "finished")
    .order_by(_unfinished.c.place)
    .limit(1)
    .scalar_subquery(),
    select(_last.c.outcome)
    .where(_last.c.session_id == sessions.c.id)
    .order_by(_last.c.place.desc())
    .limit(1)
    .scalar_subquery(),
)

APPROVAL: tuple[ColumnElement[Any], ...] = tuple(
    approvals.c[name] for name in Approval.__struct_fields__
)


def usage(row: Row) -> Usage:
    """From `TASK_USAGE`, at the beginning of the row."""
    return Usage(
        input_tokens=row[0],
        output_tokens=row[1],
        cached_tokens=row[2],
        cache_write_tokens=row[3],
        reasoning_tokens=row[4],
        estimated=bool(row[5]),
    )


def task(row: Row) -> Task:
    """From `TASK`."""
    start = len(USAGE_NAMES)
    (
        task_id, session_id, user_id, prompt, model, effort, status, waiting_on, attempt, outcome,
        error, cost, most_tokens, priority, steps, worked_ms, trace_id, created_at, started_at,
        finished_at,
    ) = row[start : start + 20]  # fmt: skip
    return Task(
        id=task_id,
        session_id=session_id,
        user_id=user_id,
        prompt=prompt,
        model=model,
        effort=effort,
        status=status,
        waiting_on=waiting_on,
        attempt=attempt,
        outcome=outcome,
        error=msgspec.json.decode(error, type=TaskError) if error else None,
        usage=usage(row),
        cost=cost,
        max_tokens_total=most_tokens,
        priority=priority,
        steps=steps,
        worked_ms=worked_ms,
        trace_id=trace_id,
        created_at=created_at,
        started_at=started_at,
        finished_at=finished_at,
    )


def session(row: Row) -> Session:
    """From `SESSION` and, where they follow, `SESSION_STATUS`; without them it is running."""
    rest = row[len(SESSION) :]
    return Session(
        id=row[0],
        user_id=row[1],
        project_id=row[2],
        title=row[3],
        model=row[4],
        effort=row[5],
        approval_policy=row[6],
        last_seq=row[7],
        created_at=row[8],
        updated_at=row[9],
        status=_status(*rest[:2]) if rest else "running",
    )


def approval(row: Row) -> Approval:
    """From `APPROVAL`."""
    return Approval(**dict(zip(Approval.__struct_fields__, row, strict=False)))


def _status(unfinished: str | None, last_outcome: str | None) -> SessionStatus:
    match unfinished:
        case "waits":
            return "requires_action"
        case "queued" | "waiting":
            return "queued"
        case None:
            return "error" if last_outcome in ("failed", "timed_out") else "idle"
        case _:
            return "running"

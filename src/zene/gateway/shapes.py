"""What clients get: the domain's values as the interface promises them, times in RFC 3339."""

from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Raw, Struct

from zene.domain import approvals, projects, quotas, sessions, tasks, users
from zene.domain.errors import InvalidInput
from zene.domain.events import Event, as_json
from zene.domain.ids import is_id
from zene.domain.messages import Usage
from zene.domain.times import rfc3339
from zene.store import steers
from zene.store.usage import UserUsage

T = TypeVar("T")
Seq = Annotated[int, Meta(ge=0, le=1 << 53)]


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """Part of a list; `next_cursor` asks for what comes after, null at the end."""

    items: Sequence[T]
    next_cursor: str | None


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a list is asked for."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: Annotated[str, Meta(max_length=256)] | None = None

    def after(self, prefix: str) -> str | None:
        """The id that the page comes after. Raises InvalidInput for a cursor that was never given out."""
        if self.cursor is not None and not is_id(self.cursor, prefix):
            raise InvalidInput("The cursor is none that was given out.", code="bad_cursor")
        return self.cursor


class Tokens(Struct, frozen=True, kw_only=True):
    """What signing in gives; `expires_in` is the access token's, in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - a word of RFC 6750
    expires_in: int


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model that people may choose, by the name to choose it by; its window is in tokens."""

    id: str
    window: int | None = None


class Models(Struct, frozen=True, kw_only=True):
    """All of them; `default` is the one that a session gets when it names none."""

    items: Sequence[Model]
    default: str
    next_cursor: str | None = None


class User(Struct, frozen=True, kw_only=True):
    """Somebody who may sign in; `max_active_tasks` is null where the server's own cap holds."""

    id: str
    email: str
    role: users.Role
    disabled: bool
    quota: quotas.Quota | None
    max_active_tasks: int | None
    created_at: str


class Project(Struct, frozen=True, kw_only=True):
    """A codebase that sessions start from."""

    id: str
    name: str
    state: str
    files: int
    bytes: int
    created_at: str
    updated_at: str


class Unpacked(Struct, frozen=True, kw_only=True):
    """The project after an upload; `dropped` names what was left out of the archive's `.git`."""

    project: Project
    dropped: Sequence[str]


class Session(Struct, frozen=True, kw_only=True):
    """A conversation; `last_seq` is the head of its event log."""

    id: str
    project_id: str | None
    title: str
    model: str
    effort: str | None
    approval_policy: sessions.ApprovalPolicy
    status: sessions.SessionStatus
    last_seq: int
    created_at: str
    updated_at: str


class Task(Struct, frozen=True, kw_only=True):
    """One request to the agent; `position` is its place in its session's queue while it is queued."""

    id: str
    session_id: str
    prompt: str
    model: str
    effort: str | None
    status: tasks.Status
    waiting_on: tasks.WaitingOn | None
    position: int | None
    attempt: int
    outcome: tasks.Outcome | None
    error: tasks.TaskError | None
    usage: Usage
    cost: float | None
    max_tokens_total: int | None
    priority: int
    steps: int
    worked_ms: int
    trace_id: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class Steer(Struct, frozen=True, kw_only=True):
    """Something said to a task; `id` is that of the message which it becomes when the task hears it."""

    id: str
    session_id: str
    task_id: str
    text: str
    created_at: str


class Approval(Struct, frozen=True, kw_only=True):
    """A call that waits, or waited, for a person; `arguments` are the exact ones that a decision binds."""

    id: str
    session_id: str
    task_id: str
    item_id: str
    name: str
    arguments: Raw
    arguments_hash: str
    summary: str
    risk: str
    status: approvals.ApprovalStatus
    scope: approvals.Scope | None
    note: str
    decided_by: str | None
    created_at: str
    decided_at: str | None
    expires_at: str


class DayUsage(Struct, frozen=True, kw_only=True):
    """Tokens of one day, in UTC."""

    day: str
    tokens: int


class ModelUsage(Struct, frozen=True, kw_only=True):
    """Tokens of one model."""

    model: str
    tokens: int


class UsageReport(Struct, frozen=True, kw_only=True):
    """Tokens used in the quota's period, or without one in all, and reserved for calls that are under way;
    `limit` and `period` are null where there is no quota.
    """

    used: int
    reserved: int
    limit: int | None
    period: quotas.Period | None
    by_day: Sequence[DayUsage]
    by_model: Sequence[ModelUsage]


class Events(Struct, frozen=True, kw_only=True):
    """Part of a session's log, and how far the log goes."""

    events: Sequence[Event]
    last_seq: int


def user(each: users.User) -> User:
    """The user as clients get it."""
    return User(
        id=each.id,
        email=each.email,
        role=each.role,
        disabled=each.disabled_at is not None,
        quota=each.quota,
        max_active_tasks=each.max_active_tasks,
        created_at=rfc3339(each.created_at),
    )


def project(each: projects.Project) -> Project:
    """The project as clients get it."""
    return Project(
        id=each.id,
        name=each.name,
        state=each.state,
        files=each.files,
        bytes=each.bytes,
        created_at=rfc3339(each.created_at),
        updated_at=rfc3339(each.updated_at),
    )


def session(each: sessions.Session) -> Session:
    """The session as clients get it."""
    return Session(
        id=each.id,
        project_id=each.project_id,
        title=each.title,
        model=each.model,
        effort=each.effort,
        approval_policy=each.approval_policy,
        status=each.status,
        last_seq=each.last_seq,
        created_at=rfc3339(each.created_at),
        updated_at=rfc3339(each.updated_at),
    )


def task(each: tasks.Task, position: int | None = None) -> Task:
    """The task as clients get it."""
    return Task(
        id=each.id,
        session_id=each.session_id,
        prompt=each.prompt,
        model=each.model,
        effort=each.effort,
        status=each.status,
        waiting_on=each.waiting_on,
        position=position,
        attempt=each.attempt,
        outcome=each.outcome,
        error=each.error,
        usage=each.usage,
        cost=each.cost,
        max_tokens_total=each.max_tokens_total,
        priority=each.priority,
        steps=each.steps,
        worked_ms=each.worked_ms,
        trace_id=each.trace_id,
        created_at=rfc3339(each.created_at),
        started_at=_maybe(each.started_at),
        finished_at=_maybe(each.finished_at),
    )


def steer(each: steers.Accepted) -> Steer:
    """What was said as clients get it."""
    return Steer(
        id=each.id,
        session_id=each.session_id,
        task_id=each.task_id,
        text=each.text,
        created_at=rfc3339(each.created_at),
    )


def approval(each: approvals.Approval) -> Approval:
    """The approval as clients get it."""
    return Approval(
        id=each.id,
        session_id=each.session_id,
        task_id=each.task_id,
        item_id=each.item_id,
        name=each.name,
        arguments=as_json(each.arguments),
        arguments_hash=each.arguments_hash,
        summary=each.summary,
        risk=each.risk,
        status=each.status,
        scope=each.scope,
        note=each.note,
        decided_by=each.decided_by,
        created_at=rfc3339(each.created_at),
        decided_at=_maybe(each.decided_at),
        expires_at=rfc3339(each.expires_at),
    )


def usage(found: UserUsage) -> UsageReport:
    """The user's usage as clients get it."""
    return UsageReport(
        used=found.account.used,
        reserved=found.account.reserved,
        limit=found.account.limit,
        period=None if found.quota is None else found.quota.period,
        by_day=[DayUsage(day=day, tokens=tokens) for day, tokens in found.by_day],
        by_model=[ModelUsage(model=model, tokens=tokens) for model, tokens in found.by_model],
    )


def _maybe(ms: int | None) -> str | None:
    """The time, where there is one."""
    return None if ms is None else rfc3339(ms)

"""The tables.

A session's row carries the head of its log and the epoch of its lease: the number that fences every
write. What is queued is found by a partial index over the tasks themselves, so that a queue entry cannot
be missing or left over.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from zene.store.columns import flag, identity, metadata, number, partial, usage, words

REVISION = "0002"  # of the last migration; a test compares


installation = Table(
    "installation",
    metadata,
    Column("one", BigInteger, primary_key=True, autoincrement=False),  # always 1: there is one row
    words("id"),
    number("created_at"),
)

users = Table(
    "users",
    metadata,
    identity(),
    words("email"),
    words("password_hash"),
    words("role"),
    number("created_at"),
    number("disabled_at", null=True),
    number("max_active_tasks", null=True),
    number("active", default="0"),  # how many of the user's tasks are leased
    number("turn", default="0"),  # when the user last got a worker, counted in claims
    number("quota_tokens", null=True),
    words("quota_period", null=True),
    words("quota_window", null=True),  # the day or month that `quota_used` counts
    number("quota_used", default="0"),
    number("quota_reserved", default="0"),  # by the model calls that are open
    UniqueConstraint("email"),
    Index(None, "turn"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    words("private_sealed"),
    words("public_jwk"),
    number("created_at"),
)

families = Table(
    "refresh_families",
    metadata,
    identity(),
    words("user_id", ForeignKey("users.id")),
    number("created_at"),
    number("revoked_at", null=True),
    Index(None, "user_id"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", Text, primary_key=True),
    words("family_id", ForeignKey("refresh_families.id", ondelete="CASCADE")),
    number("expires_at"),
    number("used_at", null=True),
    words("successor_sealed", null=True),
    Index(None, "family_id"),
    Index(None, "expires_at"),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("email", Text, primary_key=True),
    number("count"),
    number("last_at"),
    Index(None, "last_at"),
)

projects = Table(
    "projects",
    metadata,
    identity(),
    words("user_id", ForeignKey("users.id")),
    words("name"),
    words("state"),
    number("files"),
    number("bytes"),
    number("created_at"),
    number("updated_at"),
    number("deleted_at", null=True),
    Index(None, "user_id", "id"),
)

sessions = Table(
    "sessions",
    metadata,
    identity(),
    words("user_id", ForeignKey("users.id")),
    words("project_id", ForeignKey("projects.id"), null=True),
    words("title"),
    words("model"),
    words("effort", null=True),
    words("approval_policy"),
    number("last_seq", default="0"),
    number("lease_epoch", default="0"),  # grows when a lease is given out and when one ends
    number("history_from", default="0"),  # place of the last compaction
    words("home", null=True),  # the host whose workers reach its workspace
    words("batch", null=True),  # the last that a worker recorded, to know it when it comes again
    number("batch_after", null=True),  # the log's head before it
    words("batch_grant", null=True),  # what it was answered
    number("created_at"),
    number("updated_at"),
    number("deleted_at", null=True),
    Index(None, "user_id", "id"),
    Index(None, "project_id"),
)

events = Table(
    "events",
    metadata,
    words("session_id"),
    number("seq"),
    number("at"),
    words("task_id", null=True),
    number("step", null=True),
    words("item_id", null=True),
    words("type"),
    words("data"),
    PrimaryKeyConstraint("session_id", "seq"),
)

tasks = Table(
    "tasks",
    metadata,
    identity(),
    words("session_id", ForeignKey("sessions.id")),
    words("user_id", ForeignKey("users.id")),
    number("place"),  # its turn in the session: seq of its task.queued, or of one it changed with
    words("prompt"),
    words("model"),
    words("effort", null=True),
    words("status"),
    words("waiting_on", null=True),
    number("attempt", default="1"),
    number("losses", default="0"),  # of the lease, in a row, without a completed step
    words("outcome", null=True),
    words("error", null=True),
    *usage(),
    number("reserved", default="0"),  # by the model call that is open
    number("max_tokens_total", null=True),
    number("steps", default="0"),
    number("worked_ms", default="0"),
    words("lease_worker", null=True),
    number("lease_epoch", null=True),  # set while it is leased
    number("lease_expires_at", null=True),
    number("priority", default="0"),  # among what its user has queued; higher goes first
    flag("is_head"),  # whether it is its session's oldest unfinished task
    words("trace_id", null=True),  # of the request that submitted it
    number("wanted_tokens", null=True),  # the least that the model call it waits for may cost
    number("created_at"),
    number("started_at", null=True),
    number("finished_at", null=True),
    UniqueConstraint("session_id", "place"),
    partial(
        "ix_tasks_ready",
        "user_id",
        text("priority DESC"),
        "id",
        where="status = 'queued' AND is_head = 1",
    ),
    partial("ix_tasks_unfinished", "session_id", "place", where="status <> 'finished'"),
    partial(
        "ix_tasks_short_of_tokens",
        "user_id",
        "id",
        where="status = 'waiting' AND waiting_on = 'quota'",
    ),
    partial("ix_tasks_leased", "lease_expires_at", where="lease_epoch IS NOT NULL"),
)

steers = Table(
    "steers",
    metadata,
    identity(),
    words("session_id"),
    words("task_id", ForeignKey("tasks.id")),
    words("text"),
    number("created_at"),
    number("taken_seq", null=True),  # of the event that put it into the history
    Index(None, "task_id", "id"),
    Index(None, "session_id"),
)

items = Table(
    "items",
    metadata,
    identity(),
    words("session_id"),
    words("task_id", ForeignKey("tasks.id")),
    number("step"),
    number("place"),  # seq of the event that gave it its content: its turn in the history
    words("kind"),
    words("status"),  # open, or as its item.completed says
    words("call_id", null=True),
    words("content", null=True),
    flag("asked"),
    number("intent_epoch", null=True),  # the lease under which its effect began
    Index(None, "session_id", "place"),
    Index("ix_items_call", "session_id", "call_id"),
    Index(None, "task_id", "status"),
)

model_calls = Table(
    "model_calls",
    metadata,
    words("task_id", ForeignKey("tasks.id")),
    number("step"),
    words("session_id"),
    words("user_id"),
    words("model"),
    number("place"),  # seq of its step.started
    words("status"),  # open, settled by its usage, or charged at its reservation
    number("input_bound"),
    number("output_cap"),
    *usage(),
    number("started_at"),
    number("ended_at", null=True),
    PrimaryKeyConstraint("task_id", "step"),
    Index(None, "session_id", "place"),
    partial("ix_model_calls_open", "user_id", where="status = 'open'"),
)

usage_days = Table(
    "usage_days",
    metadata,
    words("user_id"),
    words("day"),
    words("model"),
    *usage(),
    PrimaryKeyConstraint("user_id", "day", "model"),
)

approvals = Table(
    "approvals",
    metadata,
    identity(),
    words("session_id"),
    words("task_id", ForeignKey("tasks.id")),
    words("item_id"),
    words("user_id"),
    words("name"),
    words("arguments"),
    words("arguments_hash"),
    words("summary"),
    words("risk"),
    words("status"),
    flag("used"),
    words("scope", null=True),
    words("note"),
    words("decided_by", null=True),
    number("created_at"),
    number("decided_at", null=True),
    number("expires_at"),
    Index(None, "user_id", "id"),
    Index(None, "session_id"),
    Index(None, "task_id", "item_id"),
    partial("ix_approvals_pending", "expires_at", where="status = 'pending'"),
)

rules = Table(
    "rules",
    metadata,
    words("session_id", ForeignKey("sessions.id")),
    words("tool"),
    number("created_at"),
    PrimaryKeyConstraint("session_id", "tool"),
)

idempotency = Table(
    "idempotency",
    metadata,
    words("user_id"),
    words("key"),
    words("fingerprint"),
    words("session_id", null=True),
    words("response", null=True),
    number("created_at"),
    PrimaryKeyConstraint("user_id", "key"),
    Index(None, "created_at"),
    Index(None, "session_id"),
)

jobs = Table(
    "jobs",
    metadata,
    identity(),
    words("kind"),
    words("payload"),
    number("epoch", default="0"),
    number("attempt", default="0"),
    words("worker", null=True),
    words("error", null=True),
    number("due_at"),  # when it may be taken; while a worker has it, the end of its lease
    number("created_at"),
    Index(None, "due_at"),
)

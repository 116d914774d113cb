"""The tables. Times are milliseconds since 1970, booleans 0 and 1, JSON is text: nothing is converted on
the way in or out, so that statements can run on the drivers directly.

A session's row carries the head of its log and the epoch of its lease: the number that fences every
write. What is queued is found by a partial index over the tasks themselves, so that a queue entry cannot
be missing or left over.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION = "0001"  # of the last migration; a test compares

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _words(name: str, *rest: Any, null: bool = False, default: str | None = None) -> Column[str]:
    """A column of text."""
    return Column(name, Text, *rest, nullable=null, server_default=default)


def _number(name: str, *rest: Any, null: bool = False, default: str | None = None) -> Column[int]:
    """A column of 64 bits: a count or a time."""
    return Column(name, BigInteger, *rest, nullable=null, server_default=default)


def _flag(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default="0")


def _usage() -> list[Column[Any]]:
    """What was used, as `domain.messages.Usage` has it, and what it cost in US dollars."""
    names = (
        "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens",
    )  # fmt: skip
    return [
        *(_number(name, default="0") for name in names),
        _flag("estimated"),
        Column("cost", Float(53)),
    ]


installation = Table("installation", metadata, _id(), _number("created_at"))

users = Table(
    "users",
    metadata,
    _id(),
    _words("email"),
    _words("password_hash"),
    _words("role"),
    _number("created_at"),
    _number("disabled_at", null=True),
    _number("max_active_tasks", null=True),
    _number("active", default="0"),  # how many of the user's tasks are leased
    _number("turn", default="0"),  # when the user last got a worker, counted in claims
    UniqueConstraint("email"),
    Index(None, "turn"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("private_sealed", LargeBinary, nullable=False),
    _words("public_jwk"),
    _number("created_at"),
)

refresh_families = Table(
    "refresh_families",
    metadata,
    _id(),
    _words("user_id", ForeignKey("users.id")),
    _number("created_at"),
    _number("revoked_at", null=True),
    Index(None, "user_id"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", Text, primary_key=True),
    _words("family_id", ForeignKey("refresh_families.id", ondelete="CASCADE")),
    _number("expires_at"),
    _number("rotated_at", null=True),
    Column("successor_sealed", LargeBinary),
    Index(None, "family_id"),
    Index(None, "expires_at"),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("email", Text, primary_key=True),
    _number("count"),
    _number("last_at"),
    Index(None, "last_at"),
)

projects = Table(
    "projects",
    metadata,
    _id(),
    _words("user_id", ForeignKey("users.id")),
    _words("name"),
    _words("state"),
    _number("files"),
    _number("bytes"),
    _number("created_at"),
    _number("updated_at"),
    _number("deleted_at", null=True),
    Index(None, "user_id", "id"),
)

sessions = Table(
    "sessions",
    metadata,
    _id(),
    _words("user_id", ForeignKey("users.id")),
    _words("project_id", ForeignKey("projects.id"), null=True),
    _words("title"),
    _words("model"),
    _words("effort", null=True),
    _words("approval_policy"),
    _number("last_seq", default="0"),
    _number("lease_epoch", default="0"),  # grows when a lease is given out and when one ends
    _number("history_from", default="0"),  # place of the last compaction
    _number("created_at"),
    _number("updated_at"),
    _number("deleted_at", null=True),
    Index(None, "user_id", "id"),
    Index(None, "project_id"),
)

events = Table(
    "events",
    metadata,
    _words("session_id"),
    _number("seq"),
    _number("at"),
    _words("task_id", null=True),
    _number("step", null=True),
    _words("item_id", null=True),
    _words("type"),
    _words("data"),
    PrimaryKeyConstraint("session_id", "seq"),
)

tasks = Table(
    "tasks",
    metadata,
    _id(),
    _words("session_id", ForeignKey("sessions.id")),
    _words("user_id", ForeignKey("users.id")),
    _number("place"),  # seq of its task.queued: its turn in the session
    _words("prompt"),
    _words("model"),
    _words("effort", null=True),
    _words("status"),
    _words("waiting_on", null=True),
    _number("attempt", default="1"),
    _number("losses", default="0"),  # of the lease, in a row, without a completed step
    _words("outcome", null=True),
    _words("error", null=True),
    *_usage(),
    _number("reserved", default="0"),  # by the model call that is open
    _number("max_tokens_total", null=True),
    _number("steps", default="0"),
    _number("worked_ms", default="0"),
    _words("lease_worker", null=True),
    _number("lease_epoch", null=True),  # set while it is leased
    _number("lease_expires_at", null=True),
    _number("created_at"),
    _number("started_at", null=True),
    _number("finished_at", null=True),
    UniqueConstraint("session_id", "place"),
    Index("ix_tasks_queued", "user_id", "id", **{
        f"{dialect}_where": text("status = 'queued'") for dialect in ("sqlite", "postgresql")
    }),
    Index("ix_tasks_unfinished", "session_id", "place", **{
        f"{dialect}_where": text("status <> 'finished'") for dialect in ("sqlite", "postgresql")
    }),
    Index("ix_tasks_leased", "lease_expires_at", **{
        f"{dialect}_where": text("lease_epoch IS NOT NULL") for dialect in ("sqlite", "postgresql")
    }),
)  # fmt: skip

items = Table(
    "items",
    metadata,
    _id(),
    _words("session_id"),
    _words("task_id", ForeignKey("tasks.id")),
    _number("step"),
    _number("place"),  # seq of the event that gave it its content: its turn in the history
    _words("kind"),
    _words("status"),  # open, or as its item.completed says
    _words("call_id", null=True),
    _words("content", null=True),
    _flag("asked"),
    _number("intent_epoch", null=True),  # the lease under which its effect began
    Index(None, "session_id", "place"),
    Index("ix_items_call", "session_id", "call_id"),
    Index("ix_items_open", "task_id", **{
        f"{dialect}_where": text("status = 'open'") for dialect in ("sqlite", "postgresql")
    }),
)  # fmt: skip

model_calls = Table(
    "model_calls",
    metadata,
    _words("task_id", ForeignKey("tasks.id")),
    _number("step"),
    _words("session_id"),
    _words("user_id"),
    _words("model"),
    _number("place"),  # seq of its step.started
    _words("status"),  # open, settled by its usage, or charged at its reservation
    _number("input_bound"),
    _number("output_cap"),
    *_usage(),
    _number("started_at"),
    _number("ended_at", null=True),
    PrimaryKeyConstraint("task_id", "step"),
    Index(None, "session_id", "place"),
    Index("ix_model_calls_open", "user_id", **{
        f"{dialect}_where": text("status = 'open'") for dialect in ("sqlite", "postgresql")
    }),
)  # fmt: skip

usage_days = Table(
    "usage_days",
    metadata,
    _words("user_id"),
    _words("day"),
    _words("model"),
    *_usage(),
    PrimaryKeyConstraint("user_id", "day", "model"),
)

approvals = Table(
    "approvals",
    metadata,
    _id(),
    _words("session_id"),
    _words("task_id", ForeignKey("tasks.id")),
    _words("item_id"),
    _words("user_id"),
    _words("name"),
    _words("arguments"),
    _words("arguments_hash"),
    _words("summary"),
    _words("risk"),
    _words("status"),
    _flag("used"),
    _words("scope", null=True),
    _words("note"),
    _words("decided_by", null=True),
    _number("created_at"),
    _number("decided_at", null=True),
    _number("expires_at"),
    Index(None, "user_id", "id"),
    Index(None, "session_id"),
    Index(None, "task_id"),
    Index("ix_approvals_pending", "expires_at", **{
        f"{dialect}_where": text("status = 'pending'") for dialect in ("sqlite", "postgresql")
    }),
)  # fmt: skip

rules = Table(
    "rules",
    metadata,
    _words("session_id", ForeignKey("sessions.id")),
    _words("tool"),
    _number("created_at"),
    PrimaryKeyConstraint("session_id", "tool"),
)

idempotency = Table(
    "idempotency",
    metadata,
    _words("user_id"),
    _words("key"),
    _words("fingerprint"),
    _words("session_id", null=True),
    _words("response", null=True),
    _number("created_at"),
    PrimaryKeyConstraint("user_id", "key"),
    Index(None, "created_at"),
    Index(None, "session_id"),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    _words("kind"),
    _words("payload"),
    _number("epoch", default="0"),
    _number("attempt", default="0"),
    _words("worker", null=True),
    _words("error", null=True),
    _number("due_at"),  # when it may be taken; while a worker has it, the end of its lease
    _number("created_at"),
    Index(None, "due_at"),
)

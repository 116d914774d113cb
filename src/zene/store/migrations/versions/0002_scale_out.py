"""What many gateways and workers need: quotas, places in the queue, steering, homes, one name for all.

Every column has a default or may be missing, so that the release before goes on beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SHORT_OF_TOKENS = "status = 'waiting' AND waiting_on = 'quota'"
_READY = "status = 'queued' AND is_head = 1"


def upgrade() -> None:
    """Add columns and a table; nothing that is there changes."""
    op.add_column("users", sa.Column("quota_tokens", sa.BigInteger(), nullable=True))
    op.add_column("users", sa.Column("quota_period", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("quota_window", sa.Text(), nullable=True))
    _add_count("users", "quota_used")
    _add_count("users", "quota_reserved")
    op.add_column("sessions", sa.Column("home", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("batch", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("batch_after", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("batch_grant", sa.Text(), nullable=True))
    _add_count("tasks", "priority")
    op.add_column("tasks", sa.Column("trace_id", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("wanted_tokens", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_tasks_short_of_tokens",
        "tasks",
        ["user_id", "id"],
        sqlite_where=sa.text(_SHORT_OF_TOKENS),
        postgresql_where=sa.text(_SHORT_OF_TOKENS),
    )
    _heads()
    _steers()
    _installation()


def _heads() -> None:
    """What may be handed out can be found without looking at what is queued behind it."""
    head = sa.Column("is_head", sa.Integer(), server_default="0", nullable=False)
    op.add_column("tasks", head)
    op.execute(
        "UPDATE tasks SET is_head = 1 WHERE status <> 'finished' AND NOT EXISTS (SELECT 1"
        " FROM tasks AS earlier WHERE earlier.session_id = tasks.session_id"
        " AND earlier.status <> 'finished' AND earlier.place < tasks.place)"
    )
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["user_id", sa.text("priority DESC"), "id"],
        sqlite_where=sa.text(_READY),
        postgresql_where=sa.text(_READY),
    )
    op.drop_index("ix_tasks_queued", "tasks")


def _add_count(table: str, column: str) -> None:
    op.add_column(table, sa.Column(column, sa.BigInteger(), server_default="0", nullable=False))


def _steers() -> None:
    op.create_table(
        "steers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("taken_seq", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_steers_task_id"),
        sa.PrimaryKeyConstraint("id", name="pk_steers"),
    )
    op.create_index("ix_steers_task_id_id", "steers", ["task_id", "id"])
    op.create_index("ix_steers_session_id", "steers", ["session_id"])


def _installation() -> None:
    op.create_table(
        "installation",
        sa.Column("one", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_installation"),
    )

"""Sessions: a conversation on a project, with a workspace of its own, belonging to one user."""

from typing import Literal

from msgspec import Struct

ApprovalPolicy = Literal["auto", "ask_for_writes", "ask_always"]
SessionStatus = Literal["idle", "queued", "running", "requires_action", "error"]


class Session(Struct, frozen=True, kw_only=True):
    """A conversation. `status` is derived from its tasks; `last_seq` is the head of its event log."""

    id: str
    user_id: str
    project_id: str | None
    title: str
    model: str
    effort: str | None
    approval_policy: ApprovalPolicy
    status: SessionStatus
    last_seq: int
    created_at: int
    updated_at: int

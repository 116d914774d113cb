"""Approvals: a person's answer to one tool call, bound to the hash of its exact arguments."""

import hashlib
from typing import Literal

from msgspec import Struct

Decision = Literal["allow", "deny"]
Scope = Literal["once", "session"]
ApprovalStatus = Literal["pending", "allowed", "denied", "expired", "withdrawn"]


class Approval(Struct, frozen=True, kw_only=True):
    """A question about one call. `arguments` is the JSON text as the model sent it."""

    id: str
    session_id: str
    task_id: str
    item_id: str
    name: str
    arguments: str
    arguments_hash: str
    summary: str
    risk: Literal["low", "medium", "high"]
    status: ApprovalStatus
    scope: Scope | None
    note: str
    decided_by: str | None
    created_at: int
    decided_at: int | None
    expires_at: int


def arguments_hash(name: str, arguments: str) -> str:
    """SHA-256, in hex, of the tool's name and the exact argument text: what a decision is bound to."""
    return hashlib.sha256(f"{name}\0{arguments}".encode()).hexdigest()

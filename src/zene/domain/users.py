"""Users and what their role lets them do."""

from enum import StrEnum

from msgspec import Struct


class Role(StrEnum):
    """What somebody may do: an admin everything that is theirs and users besides, a viewer only look."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class User(Struct, frozen=True, kw_only=True):
    """Somebody who may sign in. Times are milliseconds since 1970."""

    id: str
    email: str
    role: Role
    created_at: int
    disabled_at: int | None = None
    max_active_tasks: int | None = None

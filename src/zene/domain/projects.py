"""Projects: a codebase that sessions start from."""

from typing import Literal

from msgspec import Struct


class Project(Struct, frozen=True, kw_only=True):
    """A codebase of one user. `state` is `empty` until an archive has been unpacked."""

    id: str
    user_id: str
    name: str
    state: Literal["empty", "ready"]
    files: int
    bytes: int
    created_at: int
    updated_at: int

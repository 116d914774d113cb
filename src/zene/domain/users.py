"""Users and what their role lets them do."""

import re
from enum import StrEnum

from msgspec import Struct

from zene.domain.errors import InvalidInput
from zene.domain.quotas import Quota

_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")


class Role(StrEnum):
    """What somebody may do: an admin everything that is theirs and users besides, a viewer only look."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class User(Struct, frozen=True, kw_only=True):
    """Somebody who may sign in. Times are milliseconds since 1970; without `max_active_tasks` the server's
    own cap holds, without a quota none.
    """

    id: str
    email: str
    role: Role
    created_at: int
    disabled_at: int | None = None
    max_active_tasks: int | None = None
    quota: Quota | None = None


def email_address(text: str) -> str:
    """The address in the one spelling that sign-in looks up. Raises InvalidInput for what is none."""
    email = text.strip().casefold()
    if not _EMAIL.fullmatch(email):
        raise InvalidInput(
            f"{text!r} is no e-mail address: write NAME@HOST.", details={"field": "email"}
        )
    return email

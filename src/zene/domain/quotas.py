"""Quotas: how many tokens somebody may use, in all or in each day or month of UTC."""

from typing import Literal

from msgspec import Struct

from zene.domain.events import ErrorBody
from zene.domain.times import rfc3339

EXHAUSTED = ErrorBody(
    code="budget_exhausted",
    message="The tokens that were left do not suffice for another model call. The work done is kept.",
)

Period = Literal["day", "month", "total"]


class Quota(Struct, frozen=True, kw_only=True):
    """At most so many tokens, input and output, in each period; `total` never begins anew."""

    tokens: int
    period: Period = "total"


class Account(Struct, frozen=True, kw_only=True):
    """Tokens used in the period that is now and reserved by model calls that are open; `limit` is None
    where there is none.
    """

    used: int
    reserved: int
    limit: int | None


def day_of(now: int) -> str:
    """The day in UTC of a time in milliseconds since 1970."""
    return rfc3339(now)[:10]


def windows(now: int) -> dict[Period, str]:
    """The window of each period that a time is in. Of two windows of one period the later sorts last, and
    no day that is in a window sorts before it.
    """
    day = day_of(now)
    return {"day": day, "month": day[:7], "total": ""}

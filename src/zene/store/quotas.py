"""Quotas: what a user may use, has used and has reserved stands in the user's row, and is decided on by the
UPDATE that changes it.

A user's window only moves on: the first UPDATE whose time is in a later one begins it at nothing used, and a
machine whose clock is behind counts in the window that there is. A call counts in the window in which it
ends; what it reserved is carried over until then. Whoever writes here has not touched the session's row yet,
or has held the user's before it.
"""

from sqlalchemy import BigInteger, Text, bindparam, case, cast, exists, func, or_, select, update

from zene.domain.errors import NotFound
from zene.domain.quotas import Account, Quota, windows
from zene.domain.situation import Granted, Refused
from zene.store.base import Row, Statement, Unit
from zene.store.schema import model_calls, tasks, usage_days, users

_window = case(
    (users.c.quota_period == "day", bindparam("day", type_=Text)),
    (users.c.quota_period == "month", bindparam("month", type_=Text)),
    else_="",
)
_is_new = func.coalesce(users.c.quota_window, "") < _window
USED = case((_is_new, 0), else_=users.c.quota_used)
_moved_on = {
    "quota_used": USED,
    "quota_window": case((_is_new, _window), else_=users.c.quota_window),
}
_own = users.c.id == bindparam("user")
_ACCOUNT = (users.c.quota_used, users.c.quota_reserved, users.c.quota_tokens)

_HOLD = Statement(update(users).where(_own).values(_moved_on).returning(*_ACCOUNT))
_RESERVE = Statement(
    update(users)
    .where(
        _own,
        or_(
            users.c.quota_tokens.is_(None),
            USED + users.c.quota_reserved + bindparam("tokens") <= users.c.quota_tokens,
        ),
    )
    .values(_moved_on | {"quota_reserved": users.c.quota_reserved + bindparam("tokens")})
    .returning(users.c.id)
)
# What the release before reserved, beside this one or before it, is not in the row.
_left_reserved = case(
    (users.c.quota_reserved > bindparam("freed"), users.c.quota_reserved - bindparam("freed")),
    else_=0,
)
_SETTLE = Statement(
    update(users)
    .where(_own)
    .values(
        _moved_on | {"quota_used": USED + bindparam("tokens"), "quota_reserved": _left_reserved}
    )
)
_used_since = (
    select(
        cast(
            func.coalesce(func.sum(usage_days.c.input_tokens + usage_days.c.output_tokens), 0),
            BigInteger,
        )
    )
    .where(usage_days.c.user_id == users.c.id, usage_days.c.day >= bindparam("window"))
    .scalar_subquery()
)
_reserved_now = (
    select(
        cast(
            func.coalesce(func.sum(model_calls.c.input_bound + model_calls.c.output_cap), 0),
            BigInteger,
        )
    )
    .where(model_calls.c.user_id == users.c.id, model_calls.c.status == "open")
    .scalar_subquery()
)
_is_same = users.c.quota_period == bindparam("period")
_SET = Statement(
    update(users)
    .where(_own)
    .values(
        quota_tokens=bindparam("tokens"),
        quota_period=bindparam("period"),
        quota_window=case((_is_same, users.c.quota_window), else_=bindparam("window")),
        quota_used=case((_is_same, users.c.quota_used), else_=_used_since),
        quota_reserved=_reserved_now,
    )
)
_LIFT = Statement(update(users).where(_own).values(quota_tokens=None, quota_period=None))
_LOOK = Statement(
    select(
        USED,
        users.c.quota_reserved,
        users.c.quota_tokens,
        exists().where(
            tasks.c.user_id == users.c.id,
            tasks.c.status == "waiting",
            tasks.c.waiting_on == "quota",
        ),
    ).where(_own)
)


def hold(user_id: str, now: int) -> Unit[Account]:
    """Hold the user's row, in the window that is now. Raises NotFound."""
    found = yield _HOLD(user=user_id, **at(now))
    if not found:
        raise NotFound("There is no such user.")
    return _account(found[0])


def reserve(user_id: str, *, bound: int, cap: int, least: int, now: int) -> Unit[Granted | Refused]:
    """Reserve `bound` tokens of input and, of output, `cap` or what less is left, but not under `least`. Who
    could have them if others needed nothing of what they have reserved may wait for that.
    """
    if (yield _RESERVE(user=user_id, tokens=bound + cap, **at(now))):
        return Granted(cap)
    account = yield from hold(user_id, now)
    most = (account.limit or 0) - account.used - bound
    lower = most - account.reserved
    if lower >= least and (yield _RESERVE(user=user_id, tokens=bound + lower, **at(now))):
        return Granted(lower)
    return Refused("wait" if most >= least else "exhausted")


def settle(user_id: str, *, used: int, freed: int, now: int) -> Unit[None]:
    """Put what a call used in the place of what it had reserved."""
    yield _SETTLE(user=user_id, tokens=used, freed=freed, **at(now))


def look(user_id: str, now: int) -> Unit[tuple[Account, bool]]:
    """How the user's account stands, and whether a task of theirs waits for tokens. Raises NotFound."""
    found = yield _LOOK(user=user_id, **at(now))
    if not found:
        raise NotFound("There is no such user.")
    return _account(found[0]), bool(found[0][3])


def set_quota(user_id: str, quota: Quota | None, now: int) -> Unit[None]:
    """Set a limit, raise it, lower it or, with None, lift it. What was used before counts: in the window
    of the same period as it stands, in another's as the days' usage has it. Raises NotFound.
    """
    yield from hold(user_id, now)
    if quota is None:
        yield _LIFT(user=user_id)
        return
    yield _SET(
        user=user_id,
        tokens=quota.tokens,
        period=quota.period,
        window=windows(now)[quota.period],
    )


def at(now: int) -> dict[str, str]:
    """The parameters of whatever reads `USED`."""
    there = windows(now)
    return {"day": there["day"], "month": there["month"]}


def _account(row: Row) -> Account:
    return Account(used=row[0], reserved=row[1], limit=row[2])

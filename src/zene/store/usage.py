"""What a user has used, and what is reserved for the model calls that are open."""

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, bindparam, cast, func, select

from zene.domain.quotas import Account, Quota
from zene.store.base import Statement, Unit
from zene.store.quotas import look
from zene.store.schema import usage_days
from zene.store.users import get_user

_tokens = cast(func.sum(usage_days.c.input_tokens + usage_days.c.output_tokens), BigInteger)
_BY_DAY = Statement(
    select(usage_days.c.day, _tokens)
    .where(usage_days.c.user_id == bindparam("user"))
    .group_by(usage_days.c.day)
    .order_by(usage_days.c.day.desc())
)
_BY_MODEL = Statement(
    select(usage_days.c.model, _tokens)
    .where(usage_days.c.user_id == bindparam("user"))
    .group_by(usage_days.c.model)
    .order_by(_tokens.desc())
)


class UserUsage(Struct, frozen=True, kw_only=True):
    """Input and output tokens: used in the quota's period, or without one in all; reserved now; by day (the
    last first), by model (most first).
    """

    account: Account
    quota: Quota | None
    by_day: list[tuple[str, int]]
    by_model: list[tuple[str, int]]


def usage_of(user_id: str, now: int) -> Unit[UserUsage]:
    """What the user has used. Raises NotFound."""
    account, _ = yield from look(user_id, now)
    quota = (yield from get_user(user_id)).quota
    by_day = [(row[0], row[1]) for row in (yield _BY_DAY(user=user_id))]
    if quota is None:
        account = replace(account, used=sum(tokens for _, tokens in by_day))
    by_model = [(row[0], row[1]) for row in (yield _BY_MODEL(user=user_id))]
    return UserUsage(account=account, quota=quota, by_day=by_day, by_model=by_model)

"""What a user has used, and what is reserved for the model calls that are open."""

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, cast, func, literal, select

from zene.store.base import Statement, Unit
from zene.store.schema import model_calls, usage_days

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
_bound = func.sum(model_calls.c.input_bound + model_calls.c.output_cap)
_RESERVED = Statement(
    select(func.coalesce(cast(_bound, BigInteger), 0)).where(
        model_calls.c.user_id == bindparam("user"),
        model_calls.c.status == literal("open", literal_execute=True),
    )
)


class UserUsage(Struct, frozen=True, kw_only=True):
    """Input and output tokens: used in all, reserved now, by day (the last first), by model (most first)."""

    used: int
    reserved: int
    by_day: list[tuple[str, int]]
    by_model: list[tuple[str, int]]


def usage_of(user_id: str) -> Unit[UserUsage]:
    """What the user has used."""
    by_day = [(row[0], row[1]) for row in (yield _BY_DAY(user=user_id))]
    by_model = [(row[0], row[1]) for row in (yield _BY_MODEL(user=user_id))]
    reserved: int = (yield _RESERVED(user=user_id))[0][0]
    return UserUsage(
        used=sum(tokens for _, tokens in by_day),
        reserved=reserved,
        by_day=by_day,
        by_model=by_model,
    )

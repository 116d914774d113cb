"""Tokens: reserved before a model call, settled after it, charged whole where nobody knows its end.

These are parts of units: whoever calls them holds the user's row, where a call begins or is open, and then
the session's through its log's `Writer`. The numbers stand in the user's row and in the task's, and are
decided on by the UPDATEs that change them.
"""

from sqlalchemy import bindparam, case, func, or_, select, text, update

from zene.domain.events import Draft, StepFinished, StepStarted
from zene.domain.messages import Usage
from zene.domain.quotas import day_of
from zene.domain.situation import Grant, Granted, Refused
from zene.domain.tasks import FROM, Lease
from zene.store import quotas, rows
from zene.store.base import Insertion, Statement, Unit
from zene.store.columns import one_of
from zene.store.log import Writer
from zene.store.schema import model_calls, tasks

LEAST_OUTPUT = 1024  # tokens; a call that could say less is not worth its input

_RESERVE = Statement(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task"),
        one_of(tasks.c.status, *FROM["running"], "running"),
        or_(
            tasks.c.max_tokens_total.is_(None),
            tasks.c.input_tokens + tasks.c.output_tokens + tasks.c.reserved + bindparam("total")
            <= tasks.c.max_tokens_total,
        ),
    )
    .values(
        status="running",
        reserved=tasks.c.reserved + bindparam("total"),
        steps=bindparam("at_step"),
        wanted_tokens=None,
    )
    .returning(tasks.c.id)
)
_WANT = Statement(
    update(tasks).where(tasks.c.id == bindparam("task")).values(wanted_tokens=bindparam("least"))
)
LEFT = tasks.c.max_tokens_total - tasks.c.input_tokens - tasks.c.output_tokens - tasks.c.reserved
_LEFT = Statement(select(LEFT).where(tasks.c.id == bindparam("task")))
_OPEN_CALL = Insertion(model_calls)
_SETTLE_CALL = Statement(
    update(model_calls)
    .where(
        model_calls.c.task_id == bindparam("task"),
        model_calls.c.step == bindparam("at_step"),
        model_calls.c.status == "open",
    )
    .values(
        status="settled",
        input_tokens=bindparam("input"),
        output_tokens=bindparam("output"),
        cached_tokens=bindparam("cached"),
        cache_write_tokens=bindparam("written"),
        reasoning_tokens=bindparam("reasoning"),
        estimated=bindparam("guess"),
        cost=bindparam("price"),
        ended_at=bindparam("now"),
    )
    .returning(model_calls.c.model, model_calls.c.input_bound + model_calls.c.output_cap)
)
_CHARGE = Statement(
    update(model_calls)
    .where(model_calls.c.task_id == bindparam("task"), model_calls.c.status == "open")
    .values(
        status="charged",
        input_tokens=model_calls.c.input_bound,
        output_tokens=model_calls.c.output_cap,
        estimated=1,
        ended_at=bindparam("now"),
    )
    .returning(
        model_calls.c.step,
        model_calls.c.input_bound,
        model_calls.c.output_cap,
        model_calls.c.user_id,
        model_calls.c.model,
    )
)
_ADD_USAGE = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        {
            "reserved": tasks.c.reserved - bindparam("freed"),
            "losses": tasks.c.losses * bindparam("keep_losses"),
            "cost": case(
                (bindparam("is_priced") == 1, func.coalesce(tasks.c.cost, 0) + bindparam("price")),
                else_=tasks.c.cost,
            ),
            "estimated": case((bindparam("is_estimated") == 1, 1), else_=tasks.c.estimated),
        }
        | {name: tasks.c[name] + bindparam(f"more_{name}") for name in rows.USAGE_NAMES[:-1]}
    )
)
_ADD_DAY = Statement(
    text(
        "INSERT INTO usage_days (user_id, day, model, input_tokens, output_tokens, cached_tokens,"
        " cache_write_tokens, reasoning_tokens, estimated, cost)"
        " VALUES (:user, :day, :model, :input, :output, :cached, :written, :reasoning, :estimated,"
        " :cost) ON CONFLICT (user_id, day, model) DO UPDATE SET"
        " input_tokens = usage_days.input_tokens + excluded.input_tokens,"
        " output_tokens = usage_days.output_tokens + excluded.output_tokens,"
        " cached_tokens = usage_days.cached_tokens + excluded.cached_tokens,"
        " cache_write_tokens = usage_days.cache_write_tokens + excluded.cache_write_tokens,"
        " reasoning_tokens = usage_days.reasoning_tokens + excluded.reasoning_tokens,"
        " estimated = CASE WHEN excluded.estimated = 1 THEN 1 ELSE usage_days.estimated END,"
        " cost = COALESCE(usage_days.cost + excluded.cost, usage_days.cost, excluded.cost)"
    )
)


def reserve(  # noqa: PLR0913 - a row of a ledger
    lease: Lease, writer: Writer, draft: Draft, *, bound: int, cap: int, left: int | None, now: int
) -> Unit[Grant]:
    """Say that a model call begins, once its worst case is reserved: `bound` tokens of input, and of output
    `cap` or what less is left. Where that is not worth a call, nothing is said. What is left of the task's own
    tokens is looked up, unless it is known.
    """
    step = draft.step or 0
    if left is None:
        left = (yield _LEFT(task=lease.task_id))[0][0]
    most = cap if left is None else min(cap, left - bound)
    grant = yield from _reservable(lease, bound, most, min(cap, LEAST_OUTPUT), step, now)
    if not isinstance(grant, Granted):
        return grant
    yield _OPEN_CALL(
        task_id=lease.task_id,
        step=step,
        session_id=lease.session_id,
        user_id=lease.user_id,
        model=draft.body.model if isinstance(draft.body, StepStarted) else "",
        place=writer.add(draft),
        status="open",
        input_bound=bound,
        output_cap=grant.max_output_tokens,
        **dict.fromkeys(rows.USAGE_NAMES, 0),
        cost=None,
        started_at=now,
        ended_at=None,
    )
    return grant


def settle(lease: Lease, writer: Writer, draft: Draft, body: StepFinished, now: int) -> Unit[None]:
    """Say that a model call has ended, and put what it used in the place of what was reserved."""
    usage = body.usage
    settled = yield _SETTLE_CALL(
        task=lease.task_id,
        at_step=draft.step,
        input=usage.input_tokens,
        output=usage.output_tokens,
        cached=usage.cached_tokens,
        written=usage.cache_write_tokens,
        reasoning=usage.reasoning_tokens,
        guess=int(usage.estimated),
        price=body.cost,
        now=now,
    )
    for model, reserved in settled:
        yield from _add_usage(
            lease.task_id,
            lease.user_id,
            model,
            usage,
            body.cost,
            freed=reserved,
            now=now,
            is_whole=True,
        )
        writer.add(draft)


def charge(writer: Writer, task_id: str, now: int) -> Unit[None]:
    """Charge a model call whose end nobody knows at what was reserved for it, and say so."""
    for step, bound, cap, user_id, model in (yield _CHARGE(task=task_id, now=now)):
        usage = Usage(input_tokens=bound, output_tokens=cap, estimated=True)
        yield from _add_usage(task_id, user_id, model, usage, None, freed=bound + cap, now=now)
        body = StepFinished(stop_reason="interrupted", usage=usage)
        writer.add(Draft(body=body, task_id=task_id, step=step))


def _reservable(
    lease: Lease, bound: int, most: int, least: int, step: int, now: int
) -> Unit[Grant]:
    """Reserve input and output, for the user and for the task. What is refused for want of the user's tokens
    alone is written down as wanted: the task may wait for them.
    """
    task_id, user_id = lease.task_id, lease.user_id
    if most < least:
        return Refused("exhausted")
    grant = yield from quotas.reserve(user_id, bound=bound, cap=most, least=least, now=now)
    if isinstance(grant, Refused):
        if grant.why == "wait":
            yield _WANT(task=task_id, least=bound + least)
        return grant
    total = bound + grant.max_output_tokens
    if not (yield _RESERVE(task=task_id, total=total, at_step=step)):  # it is being cancelled
        yield from quotas.settle(user_id, used=0, freed=total, now=now)
        return Refused("exhausted")
    return grant


def _add_usage(  # noqa: PLR0913 - a row of a ledger
    task_id: str,
    user_id: str,
    model: str,
    usage: Usage,
    cost: float | None,
    *,
    freed: int,
    now: int,
    is_whole: bool = False,
) -> Unit[None]:
    """Add a call's usage to its user's account and day and to its task, and free what was reserved for it. A
    step that `is_whole` shows that the task is not what kills its workers.
    """
    yield from quotas.settle(user_id, used=usage.total, freed=freed, now=now)
    counts = {f"more_{name}": getattr(usage, name) for name in rows.USAGE_NAMES[:-1]}
    yield _ADD_USAGE(
        task=task_id,
        freed=freed,
        keep_losses=int(not is_whole),
        is_priced=int(cost is not None),
        price=cost or 0.0,
        is_estimated=int(usage.estimated),
        **counts,
    )
    yield _ADD_DAY(
        user=user_id,
        day=day_of(now),
        model=model,
        input=usage.input_tokens,
        output=usage.output_tokens,
        cached=usage.cached_tokens,
        written=usage.cache_write_tokens,
        reasoning=usage.reasoning_tokens,
        estimated=int(usage.estimated),
        cost=cost,
    )

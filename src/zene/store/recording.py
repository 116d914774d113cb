"""What a worker's batch makes true: every effect of its drafts, and their events, in one fenced unit."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from sqlalchemy import bindparam, exists, insert, or_, select, update

from zene.domain.approvals import arguments_hash
from zene.domain.errors import Conflict, LeaseLost
from zene.domain.events import (
    CALL_KINDS,
    ApprovalRequested,
    Draft,
    ErrorBody,
    Event,
    ItemCompleted,
    ItemStarted,
    StepFinished,
    StepStarted,
    TaskFinished,
    TaskWaiting,
)
from zene.domain.messages import Compaction, ToolCall, UserMessage
from zene.domain.quotas import EXHAUSTED, Account
from zene.domain.situation import Grant, Refused, Unheard
from zene.domain.tasks import FROM, Lease, Outcome
from zene.domain.times import milliseconds
from zene.store import ending, quotas, spending, steers
from zene.store.approvals import resume
from zene.store.base import Insertion, Statement, Unit
from zene.store.columns import one_of
from zene.store.log import HELD, Writer, tail
from zene.store.schema import approvals, items, sessions, tasks, users

_RUN = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"), one_of(tasks.c.status, *FROM["running"]))
    .values(status="running")
)
_START_ITEM = Insertion(items)
_COMPACT = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(history_from=bindparam("seq"))
)
_INTEND = Statement(
    update(items)
    .where(
        items.c.id == bindparam("item"),
        items.c.task_id == bindparam("task"),
        items.c.status == "open",
        items.c.intent_epoch.is_(None),
    )
    .values(intent_epoch=bindparam("epoch"))
    .returning(items.c.asked, items.c.content)
)
_USE_APPROVAL = Statement(
    update(approvals)
    .where(
        approvals.c.task_id == bindparam("task"),
        approvals.c.item_id == bindparam("item"),
        approvals.c.status == "allowed",
        approvals.c.used == 0,
        approvals.c.arguments_hash == bindparam("hash"),
    )
    .values(used=1)
    .returning(approvals.c.id)
)
_ASK = Statement(
    insert(approvals).values(
        id=bindparam("approval"),
        session_id=bindparam("session"),
        task_id=bindparam("task"),
        item_id=bindparam("item"),
        user_id=bindparam("user"),
        name=bindparam("tool"),
        arguments=bindparam("exact"),
        arguments_hash=bindparam("hash"),
        summary=bindparam("told"),
        risk=bindparam("danger"),
        status="pending",
        used=0,
        note="",
        created_at=bindparam("now"),
        expires_at=bindparam("until"),
    )
)
_MARK_ASKED = Statement(update(items).where(items.c.id == bindparam("item")).values(asked=1))
_WAIT = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"), one_of(tasks.c.status, *FROM["waiting"]))
    .values(
        status="waiting",
        waiting_on=bindparam("reason"),
        worked_ms=tasks.c.worked_ms + bindparam("more_ms"),
        lease_worker=None,
        lease_epoch=None,
        lease_expires_at=None,
    )
    .returning(tasks.c.id)
)


# With the head, what the batch would ask for each by itself: whether the task has not heard something that its
# user said before, and how many tokens it may still use.
_fence = HELD.add_columns(
    exists().where(*steers.UNHEARD),
    select(spending.LEFT).where(tasks.c.id == bindparam("task")).scalar_subquery(),
).where(
    sessions.c.lease_epoch == bindparam("epoch"),
    or_(sessions.c.batch.is_(None), sessions.c.batch != bindparam("named")),
)
_FENCE = Statement(_fence)
# And before it the user's row: rows are locked in the order in which they are named.
_FENCE_WITH_USER = Statement(
    _fence.where(users.c.id == bindparam("user")).with_for_update(
        of=[users, sessions], key_share=True
    )
)
_RECORDED = Statement(
    select(sessions.c.batch_after, sessions.c.batch_grant).where(
        sessions.c.id == bindparam("session"), sessions.c.batch == bindparam("named")
    )
)
_LONGEST = 10_000  # events


class Recorded(Struct, frozen=True):
    """The events of a batch, to be published, and the answer to what it asked for.

    `account` is the user's where a model call has ended. `is_short`: a task of the user's waits for tokens,
    and may be helped by this batch.
    """

    events: Sequence[Event]
    grant: Grant | None
    account: Account | None = None
    is_short: bool = False


class _Batch(Struct, frozen=True, kw_only=True):
    id: str
    lease: Lease
    writer: Writer
    hears: bool  # something that the task had not heard before may be said in it
    left: int | None  # tokens that the task may use, where the batch does not change that
    intents: Sequence[str]
    reserve: int | None
    output_cap: int
    now: int
    worked_ms: int
    whole: set[str | None]  # items that were written with their end


def apart(lease: Lease, drafts: Sequence[Draft], reserve: int | None) -> str:
    """What no two batches may both write to at a time: the user's row, or else the session's."""
    return lease.user_id if _is_users(drafts, reserve) else lease.session_id


def record(  # noqa: PLR0913 - a batch, field by field
    lease: Lease,
    drafts: Sequence[Draft],
    *,
    batch_id: str,
    begins: bool = True,
    intents: Sequence[str] = (),
    reserve: int | None = None,
    output_cap: int = 0,
    now: int,
    worked_ms: int = 0,
) -> Unit[Recorded]:
    """Commit a batch as the lease's owner, once: with the same `batch_id` again, for whoever was not told
    whether it was committed, it does nothing and answers the same. With the one that `begins`, or with its
    first model call, the task is running. `output_cap` is what the model call may have at most; where its
    tokens are refused, StepStarted and nothing else of the batch is left out, and where they are refused for
    good the task ends. A success that has not heard what its user said is none, and left out, too. Raises
    LeaseLost.
    """
    ends, settles = _ends(drafts), _settles(drafts)
    fence = yield (_FENCE_WITH_USER if _is_users(drafts, reserve) else _FENCE)(
        user=lease.user_id,
        session=lease.session_id,
        task=lease.task_id,
        epoch=lease.epoch,
        named=batch_id,
    )
    if fence:
        head, hears, left = fence[0]
        batch = _Batch(
            id=batch_id,
            lease=lease,
            writer=Writer(lease.session_id, head, now),
            hears=bool(hears),
            left=None if settles else left,
            intents=intents,
            reserve=reserve,
            output_cap=output_cap,
            now=now,
            worked_ms=worked_ms,
            whole=set(),
        )
        events, grant = yield from _commit(batch, drafts, begins=begins, ends=ends)
    else:
        events, grant = yield from _recorded(lease, batch_id)
    if not settles and not _waits_for_tokens(drafts):
        return Recorded(events, grant)
    account, is_short = yield from quotas.look(lease.user_id, now)
    return Recorded(events, grant, account if settles else None, is_short)


def _commit(
    batch: _Batch, drafts: Sequence[Draft], *, begins: bool, ends: bool
) -> Unit[tuple[list[Event], Grant | None]]:
    if begins and batch.reserve is None:  # else it runs with its first model call
        yield _RUN(task=batch.lease.task_id)
    grant: Grant | None = None
    for number, draft in enumerate(drafts, 1):
        after = drafts[number] if number < len(drafts) else None
        grant = (yield from _apply(batch, draft, after)) or grant
    for item_id in batch.intents:
        yield from _intend(batch, item_id)
    is_refused = grant == Refused("exhausted")
    if is_refused:
        yield from ending.finish(
            batch.writer,
            batch.lease.task_id,
            "budget_exhausted",
            EXHAUSTED,
            now=batch.now,
            worked_ms=batch.worked_ms,
        )
    lets_go = is_refused or (ends and not isinstance(grant, Unheard))
    if lets_go:
        yield ending.RELEASE_USER(user=batch.lease.user_id)
    answer = None if grant is None else msgspec.json.encode(grant).decode()
    events = yield from batch.writer.flush_batch(batch.id, answer=answer, lets_go=lets_go)
    return events, grant


def _is_users(drafts: Sequence[Draft], reserve: int | None) -> bool:
    return reserve is not None or _ends(drafts) or _settles(drafts)


def _ends(drafts: Sequence[Draft]) -> bool:
    return any(isinstance(draft.body, TaskFinished | TaskWaiting) for draft in drafts[-1:])


def _settles(drafts: Sequence[Draft]) -> bool:
    return any(isinstance(draft.body, StepFinished) for draft in drafts)


def _waits_for_tokens(drafts: Sequence[Draft]) -> bool:
    return any(
        isinstance(draft.body, TaskWaiting) and draft.body.on == "quota" for draft in drafts[-1:]
    )


def _recorded(lease: Lease, batch_id: str) -> Unit[tuple[list[Event], Grant | None]]:
    """What a batch was answered that was the last to be recorded. Raises LeaseLost where it was not."""
    found = yield _RECORDED(session=lease.session_id, named=batch_id)
    if not found:
        raise LeaseLost("The lease was given to somebody else, or the session was deleted.")
    after, answer = found[0]
    told = yield from tail(lease.session_id, after, _LONGEST)
    events = [event for event in told if event.task_id == lease.task_id]
    return events, None if answer is None else msgspec.json.decode(answer, type=Grant)


def _apply(batch: _Batch, draft: Draft, after: Draft | None) -> Unit[Grant | None]:
    """The draft's event and its effect. `match` by what has one; every other event only tells."""
    writer, now = batch.writer, batch.now
    match draft.body:
        case ItemStarted():
            yield from _start_item(batch, draft, draft.body, _end_of(draft.body, after))
        case ItemCompleted():
            yield from _complete_item(batch, draft)
        case StepStarted():
            return (
                yield from spending.reserve(
                    batch.lease,
                    writer,
                    draft,
                    bound=batch.reserve or 0,
                    cap=batch.output_cap,
                    left=batch.left,
                    now=now,
                )
            )
        case StepFinished():
            yield from spending.settle(batch.lease, writer, draft, draft.body, now)
        case ApprovalRequested():
            yield from _ask(batch, draft, draft.body)
        case TaskWaiting() | TaskFinished():
            return (yield from _let_go(batch, draft, draft.body))
        case _:
            writer.add(draft)
    return None


def _let_go(batch: _Batch, draft: Draft, body: TaskWaiting | TaskFinished) -> Unit[Grant | None]:
    """The task waits or ends, unless it has not heard everything."""
    writer, task_id = batch.writer, batch.lease.task_id
    outcome: Outcome = "cancelled"
    error: ErrorBody | None = None
    match body:
        case TaskWaiting(on=reason):
            if (yield _WAIT(task=task_id, reason=reason, more_ms=batch.worked_ms)):
                writer.add(draft)
                yield from resume(writer, task_id)
                return None
        case TaskFinished(outcome="succeeded") if (yield steers.GOES_ON(task=task_id)):
            return Unheard()
        case TaskFinished(outcome=outcome, error=error):
            pass
    yield from ending.finish(
        writer, task_id, outcome, error, now=batch.now, worked_ms=batch.worked_ms
    )
    return None


def _end_of(body: ItemStarted, after: Draft | None) -> Draft | None:
    """The draft that completes the item, where it follows at once and no call is made of it."""
    if body.kind in CALL_KINDS or after is None or not isinstance(after.body, ItemCompleted):
        return None
    return after if after.body.item_id == body.item_id else None


def _start_item(batch: _Batch, draft: Draft, body: ItemStarted, end: Draft | None) -> Unit[None]:
    """The item's row: whole, where its end is known."""
    seq, status, content = batch.writer.add(draft), "open", None
    if end is not None and isinstance(end.body, ItemCompleted):
        batch.whole.add(body.item_id)
        seq, status, content = batch.writer.next_seq, end.body.status, end.content
    elif body.kind in CALL_KINDS:
        content = draft.content
    yield _START_ITEM(
        id=body.item_id,
        session_id=batch.lease.session_id,
        task_id=batch.lease.task_id,
        step=draft.step or 0,
        place=seq,
        kind=body.kind,
        status=status,
        call_id=body.call_id,
        content=None if content is None else ending.encoded(content),
        asked=0,
        intent_epoch=None,
    )


def _complete_item(batch: _Batch, draft: Draft) -> Unit[None]:
    writer = batch.writer
    seq = writer.next_seq
    if draft.item_id in batch.whole:
        writer.add(draft)
    else:
        yield from ending.complete_item(writer, draft)
    if batch.hears and isinstance(draft.content, UserMessage):
        yield steers.TAKE(item=draft.item_id, seq=seq)
    if isinstance(draft.content, Compaction):
        yield _COMPACT(session=writer.session_id, seq=seq)


def _ask(batch: _Batch, draft: Draft, body: ApprovalRequested) -> Unit[None]:
    exact = bytes(body.arguments).decode()
    yield _ASK(
        approval=body.approval_id,
        session=batch.lease.session_id,
        task=batch.lease.task_id,
        item=body.item_id,
        user=batch.lease.user_id,
        tool=body.name,
        exact=exact,
        hash=arguments_hash(body.name, exact),
        told=body.summary,
        danger=body.risk,
        now=batch.now,
        until=milliseconds(body.expires_at),
    )
    yield _MARK_ASKED(item=body.item_id)
    batch.writer.add(draft)


def _intend(batch: _Batch, item_id: str) -> Unit[None]:
    """Write down that a call's effect begins; one that was asked about needs its unused permission."""
    begun = yield _INTEND(item=item_id, task=batch.lease.task_id, epoch=batch.lease.epoch)
    if not begun:
        raise Conflict(f"The call {item_id} has begun or ended before.", code="call_begun")
    asked, content = begun[0]
    if asked:
        call = ending.decoded(content)
        exact = arguments_hash(call.name, call.arguments) if isinstance(call, ToolCall) else ""
        if not (yield _USE_APPROVAL(task=batch.lease.task_id, item=item_id, hash=exact)):
            raise Conflict(f"Nobody allowed the call {item_id}.", code="not_allowed")

"""The event log of a session: append-only and gapless.

Who appends first holds the session's row, under a lease only where its epoch is the row's.
What the transaction says is collected by a `Writer` and given its places at the end, by one more.
"""

from collections.abc import Sequence

from msgspec import Raw
from sqlalchemy import bindparam, select, update

from zene.domain.errors import LeaseLost, NotFound
from zene.domain.events import Draft, Event, envelope
from zene.domain.tasks import Lease
from zene.domain.times import rfc3339
from zene.store.base import Insertion, Row, Statement, Unit
from zene.store.columns import ANY_OF_THEM, chunks
from zene.store.schema import events, sessions

MOST_BYTES = 8 << 20  # of events in one page, about: also a reader of long events is answered soon
_FIRST_LOOK = 16  # events after which it is known how long they are

HELD = (
    select(sessions.c.last_seq)
    .where(sessions.c.id == bindparam("session"), sessions.c.deleted_at.is_(None))
    .with_for_update(key_share=True)
)
_HOLD = Statement(HELD)
_FENCE = Statement(HELD.where(sessions.c.lease_epoch == bindparam("epoch")))
_move_head = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(last_seq=bindparam("last"), updated_at=bindparam("now"))
)
_MOVE_HEAD = Statement(_move_head)
_KEEP_BATCH = Statement(
    _move_head.values(
        lease_epoch=sessions.c.lease_epoch + bindparam("lets_go"),
        batch=bindparam("named"),
        batch_after=sessions.c.last_seq,
        batch_grant=bindparam("answer"),
    )
)
_INSERT = Insertion(events)
_COLUMNS = (
    events.c.seq,
    events.c.at,
    events.c.task_id,
    events.c.step,
    events.c.item_id,
    events.c.type,
    events.c.data,
)
_TAIL = Statement(
    select(*_COLUMNS)
    .where(events.c.session_id == bindparam("session"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)
_HEAD = Statement(
    select(sessions.c.last_seq).where(
        sessions.c.id == bindparam("session"),
        sessions.c.user_id == bindparam("user"),
        sessions.c.deleted_at.is_(None),
    )
)
_HEADS_OF = Statement(
    select(sessions.c.id, sessions.c.last_seq).where(sessions.c.id.in_(ANY_OF_THEM))
)


class Writer:
    """What one transaction appends to the log of a session whose row it holds."""

    def __init__(self, session_id: str, last_seq: int, now: int) -> None:
        self.session_id = session_id
        self._last_seq = last_seq
        self._now = now
        self._drafts: list[Draft] = []

    @property
    def next_seq(self) -> int:
        """The place that the next draft gets."""
        return self._last_seq + len(self._drafts) + 1

    def add(self, draft: Draft) -> int:
        """Say it next; its place in the log."""
        self._drafts.append(draft)
        return self._last_seq + len(self._drafts)

    def flush(self) -> Unit[list[Event]]:
        """Store what was said, once, at the end; the events, to be published after the commit."""
        if not self._drafts:
            return []
        yield _MOVE_HEAD(session=self.session_id, last=self.next_seq - 1, now=self._now)
        return (yield from self._store())

    def flush_batch(self, named: str, *, answer: str | None, lets_go: bool) -> Unit[list[Event]]:
        """The same for a batch of a worker's. With it, in the session's row: which it was, what it is answered,
        and whether its lease has ended.
        """
        yield _KEEP_BATCH(
            session=self.session_id,
            last=self.next_seq - 1,
            now=self._now,
            lets_go=int(lets_go),
            named=named,
            answer=answer,
        )
        return (yield from self._store())

    def _store(self) -> Unit[list[Event]]:
        ts = rfc3339(self._now)
        made = [
            envelope(draft, session_id=self.session_id, seq=seq, ts=ts)
            for seq, draft in enumerate(self._drafts, self._last_seq + 1)
        ]
        yield from insert_events(made, self._now)
        return made


def insert_events(made: Sequence[Event], now: int) -> Unit[None]:
    """Store events, whose places are theirs, of any number of sessions."""
    if made:
        yield _INSERT.many([_row(event, now) for event in made])


def fenced(lease: Lease, now: int) -> Unit[Writer]:
    """Hold the session as the lease's owner. Raises LeaseLost."""
    rows = yield _FENCE(session=lease.session_id, epoch=lease.epoch)
    if not rows:
        raise LeaseLost("The lease was given to somebody else, or the session was deleted.")
    return Writer(lease.session_id, rows[0][0], now)


def held(session_id: str, now: int) -> Unit[Writer]:
    """Hold the session without a lease. Raises NotFound where it is gone."""
    rows = yield _HOLD(session=session_id)
    if not rows:
        raise NotFound("There is no such session.")
    return Writer(session_id, rows[0][0], now)


def append(session_id: str, drafts: Sequence[Draft], now: int) -> Unit[list[Event]]:
    """Append events that change nothing else. Raises NotFound where the session is gone."""
    writer = yield from held(session_id, now)
    for draft in drafts:
        writer.add(draft)
    return (yield from writer.flush())


def read_events(
    user_id: str, session_id: str, after: int, limit: int
) -> Unit[tuple[list[Event], int]]:
    """A page of the user's session's log, and the log's head. Raises NotFound."""
    head = yield _HEAD(session=session_id, user=user_id)
    if not head:
        raise NotFound("There is no such session.")
    return (yield from tail(session_id, after, limit)), head[0][0]


def tail(
    session_id: str, after: int, limit: int, *, most_bytes: int = MOST_BYTES
) -> Unit[list[Event]]:
    """A page of the log of a session that the caller may see; also of one that was just deleted. It ends
    about where it reaches `most_bytes`, so that only a page of none says that there is no more.
    """
    found: list[Row] = []
    size, some = 0, min(limit, _FIRST_LOOK)
    while some > 0:
        rows = yield _TAIL(session=session_id, after=after, limit=some)
        found += rows
        size += sum(len(row[-1]) for row in rows)
        if len(rows) < some:
            break
        after = rows[-1][0]
        # As many more as fit, if they are as long as those before.
        some = min(limit - len(found), (most_bytes - size) * len(found) // max(size, 1))
    return [_event(session_id, row) for row in found]


def heads(session_ids: Sequence[str]) -> Unit[dict[str, int]]:
    """The last `seq` of each session; one that is gone is missing, one just deleted is not."""
    found: dict[str, int] = {}
    for some in chunks(session_ids):
        found.update((row[0], row[1]) for row in (yield _HEADS_OF(**some)))
    return found


def _row(event: Event, now: int) -> dict[str, object]:
    return {
        "session_id": event.session_id,
        "seq": event.seq,
        "at": now,
        "task_id": event.task_id,
        "step": event.step,
        "item_id": event.item_id,
        "type": event.type,
        "data": bytes(event.data).decode(),
    }


def _event(session_id: str, row: Row) -> Event:
    seq, at, task_id, step, item_id, kind, data = row
    return Event(
        v=1,
        seq=seq,
        ts=rfc3339(at),
        session_id=session_id,
        task_id=task_id,
        step=step,
        item_id=item_id,
        type=kind,
        data=Raw(data.encode()),
    )

"""What a session changed, as its log tells it: whole each time, and only where it is not what was told last."""

import msgspec
from sqlalchemy import bindparam, select

from zene.domain.events import DiffUpdated, Draft, Event
from zene.store.base import Statement, Unit
from zene.store.log import held
from zene.store.schema import events

NOTHING = DiffUpdated(files=(), added=0, removed=0)  # what a log without any has told

_LAST = Statement(
    select(events.c.data)
    .where(events.c.session_id == bindparam("session"), events.c.type == DiffUpdated.type)
    .order_by(events.c.seq.desc())
    .limit(1)
)


def tell(session_id: str, changes: DiffUpdated, now: int) -> Unit[list[Event]]:
    """Append it unless the log's last says the same; no lease is needed, since nothing else changes. The
    event is the session's, and of no task: the next may have begun. Raises NotFound where the session is gone.
    """
    told = yield _LAST(session=session_id)
    last = told[0][0].encode() if told else msgspec.json.encode(NOTHING)
    if last == msgspec.json.encode(changes):
        return []
    writer = yield from held(session_id, now)
    writer.add(Draft(body=changes))
    return (yield from writer.flush())

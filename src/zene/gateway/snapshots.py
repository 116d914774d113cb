"""A session as it stands at one `seq`, for readers that did not follow it from the beginning."""

from collections.abc import Sequence

from msgspec import Struct

from zene.gateway import shapes
from zene.store import approvals, sessions, tasks
from zene.store.base import Unit


class State(Struct, frozen=True, kw_only=True):
    """The session, its unfinished tasks and the approvals that it waits for."""

    session: shapes.Session
    tasks: Sequence[shapes.Task]
    approvals: Sequence[shapes.Approval]


def snapshot(user_id: str, session_id: str) -> Unit[State]:
    """All of it from one consistent read. Raises NotFound."""
    session = yield from sessions.get_session(user_id, session_id)
    unfinished = yield from tasks.unfinished(session_id)
    pending = yield from approvals.pending_of(session_id)
    return State(
        session=shapes.session(session),
        tasks=[shapes.task(*each) for each in unfinished],
        approvals=[shapes.approval(each) for each in pending],
    )

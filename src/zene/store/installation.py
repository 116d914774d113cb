"""The installation's name, which is the same for every process of it: made once, in the one row there is."""

from sqlalchemy import select, text

from zene.store.base import Statement, Unit
from zene.store.schema import installation

_OFFER = Statement(
    text(
        "INSERT INTO installation (one, id, created_at) VALUES (1, :id, :now)"
        " ON CONFLICT (one) DO NOTHING"
    )
)
_ID = Statement(select(installation.c.id).where(installation.c.one == 1))


def named(offered: str, now: int) -> Unit[str]:
    """The installation's id: the one that is offered, where it has none yet."""
    yield _OFFER(id=offered, now=now)
    found: str = (yield _ID())[0][0]
    return found


def name() -> Unit[str | None]:
    """The installation's id; None where it was never given one."""
    rows = yield _ID()
    return rows[0][0] if rows else None

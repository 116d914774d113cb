"""What a task tells its user wherever they look on, beside what its session's log says."""

from collections.abc import Iterator

import msgspec

from zene.bus.base import Bus, word
from zene.domain.events import ApprovalRequested, ApprovalWanted, Body, QuotaUpdated
from zene.store.recording import Recorded


async def tell_user(bus: Bus, user_id: str, recorded: Recorded) -> None:
    """Tell the user what was recorded that concerns them beyond the session. What is lost is found by asking."""
    for body in _words(recorded):
        await bus.tell(user_id, word(body))


def _words(recorded: Recorded) -> Iterator[Body]:
    for event in recorded.events:
        if event.type == ApprovalRequested.type:
            asked = msgspec.json.decode(event.data, type=ApprovalRequested)
            yield ApprovalWanted(
                approval_id=asked.approval_id,
                session_id=event.session_id,
                name=asked.name,
                summary=asked.summary,
                expires_at=asked.expires_at,
            )
    account = recorded.account
    if account is not None and account.limit is not None:
        yield QuotaUpdated(used=account.used, reserved=account.reserved, limit=account.limit)

"""Words to a user, as a session's stream shows them: fleeting events in the session's own envelope."""

import msgspec

from zene.bus.base import Live
from zene.domain.events import TYPES, ApprovalWanted, Draft


def shown(word: Live, session_id: str) -> Draft | None:
    """The event; None for what the session's log says itself, or what this release does not understand."""
    if (kind := TYPES.get(word.type)) is None:
        return None
    try:
        body = msgspec.json.decode(word.body, type=kind)
    except msgspec.ValidationError:
        return None
    is_own = isinstance(body, ApprovalWanted) and body.session_id == session_id
    return None if is_own else Draft(body=body)

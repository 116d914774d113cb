"""The one place where the gateway tells followers and workers what it has committed."""

from collections.abc import Sequence

from zene.bus.base import Bus, live
from zene.domain.events import Event


async def publish(bus: Bus, events: Sequence[Event]) -> None:
    """Hand committed events of one session to its followers; what gets lost is found in the store."""
    if events:
        await bus.publish(events[0].session_id, [live(event) for event in events])

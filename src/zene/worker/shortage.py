"""Tasks of a user that wait for tokens, after something has changed for them."""

from zene import telemetry
from zene.bus.base import live
from zene.store import shortage
from zene.worker.desk import Desk, now_ms

BATCH = 50  # tasks that one unit queues or ends

log = telemetry.logger(__name__)


async def resume_waiting(desk: Desk, user_id: str) -> None:
    """Queue again what fits, and end what cannot fit any more; any worker may do so at any time."""
    may_be_more = True
    while may_be_more:
        async with desk.turns.of(user_id):
            swept = await desk.store.write(shortage.resume, user_id, now=now_ms(), limit=BATCH)
        for session_id, events in swept:
            await desk.bus.publish(session_id, [live(event) for event in events])
            log.info("quota.resumed", session=session_id)
        if swept:
            await desk.bus.wake()
        may_be_more = len(swept) == BATCH

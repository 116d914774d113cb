"""`GET sessions/{id}/events`: the same log as the stream, with the same cursor, as JSON."""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct

from zene.bus.base import REVOKED
from zene.domain.errors import Unauthorized
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.following import LOOK_SECONDS
from zene.gateway.routing import route
from zene.store import log as event_log


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes after a `seq`; with `wait` (seconds) an empty answer is held back until there is something."""

    after: shapes.Seq = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 500
    wait: Annotated[float, Meta(ge=0, le=30)] = 0


@route("GET", "/v1/sessions/{session_id}/events", access="viewer")
async def events(call: Call, query: EventsQuery) -> shapes.Events:
    """A page of a session's events."""
    page = await _page(call, query)
    if page.events or not query.wait:
        return page
    session_id = call.id("session_id", "ses")
    clock = asyncio.get_running_loop().time
    deadline = clock() + query.wait
    followers, bus = call.parts.followers, call.parts.bus
    with followers.follow(session_id, call.user.id) as followed:
        while True:
            async with bus.subscribe(session_id, call.user.id) as subscription:
                page = await _page(call, query)  # what came before the subscription began
                while not (page.events or subscription.ended or followers.draining):
                    if (left := deadline - clock()) <= 0:
                        return page
                    live = await subscription.next(min(left, LOOK_SECONDS))
                    await _check(call, look=live is not None and live.type == REVOKED.type)
                    if (live and live.durable) or followed.head != page.last_seq:
                        page = await _page(call, query)
            if page.events or followers.draining or not subscription.lagged:
                return page


async def _check(call: Call, *, look: bool) -> None:
    if not await call.parts.sign_ins.still_good(call.caller.claims, look=look):
        raise Unauthorized("This sign-in has ended. Sign in again.", code="signed_out")


async def _page(call: Call, query: EventsQuery) -> shapes.Events:
    found, last_seq = await call.parts.store.read(
        event_log.read_events,
        call.user.id,
        call.id("session_id", "ses"),
        query.after,
        query.limit,
    )
    return shapes.Events(events=found, last_seq=last_seq)


ROUTES = (events,)

"""What the caller has used."""

from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.routing import route
from zene.store import usage


@route("GET", "/v1/usage", access="viewer")
async def used(call: Call) -> shapes.UsageReport:
    """Tokens used, reserved and allowed in the quota's period, or without one used in all; by day and by model."""
    found = await call.parts.store.read(usage.usage_of, call.user.id, call.now())
    return shapes.usage(found)


ROUTES = (used,)

"""What the caller has used."""

from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.routing import route
from zene.store import usage


@route("GET", "/v1/usage", access="viewer")
async def used(call: Call) -> shapes.UsageReport:
    """Tokens used and reserved, by day and by model."""
    found = await call.parts.store.read(usage.usage_of, call.user.id)
    return shapes.UsageReport(
        used=found.used,
        reserved=found.reserved,
        limit=None,
        by_day=[shapes.DayUsage(day=day, tokens=tokens) for day, tokens in found.by_day],
        by_model=[
            shapes.ModelUsage(model=model, tokens=tokens) for model, tokens in found.by_model
        ],
    )


ROUTES = (used,)

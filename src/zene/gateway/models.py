"""The models that people may choose."""

from zene.domain.errors import InvalidInput
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.parts import Terms
from zene.gateway.routing import route


@route("GET", "/v1/models", access="viewer")
async def offered(call: Call) -> shapes.Models:
    """What may be chosen for a session or a task."""
    models = call.parts.terms.models
    return shapes.Models(items=models, default=models[0].id)


def chosen(terms: Terms, name: str | None) -> str:
    """The model of that name, or the default. Raises InvalidInput for one that is not offered."""
    if name is None:
        return terms.models[0].id
    names = [model.id for model in terms.models]
    if name not in names:
        raise InvalidInput(
            f"This server has no model {name!r}. It has: {', '.join(names)}.",
            code="unknown_model",
            details={"model": name},
        )
    return name


ROUTES = (offered,)

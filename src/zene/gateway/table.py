"""The route table: everything that can be asked of a gateway, and who may ask it."""

import functools

import msgspec
from starlette.responses import Response

from zene.gateway import (
    accounts,
    approvals,
    auth,
    events,
    models,
    openapi,
    operate,
    processes,
    projects,
    sessions,
    stream,
    tasks,
    usage,
    workspace,
)
from zene.gateway.calls import Call
from zene.gateway.routing import JSON, Route, route


@route("GET", "/openapi.json", access="public")
async def description(call: Call) -> Response:
    """This interface, as an OpenAPI document."""
    return Response(_described(call.parts.terms.version), media_type=JSON)


@functools.cache
def _described(version: str) -> bytes:
    """Made when first asked for, so that starting does not wait for it."""
    return msgspec.json.encode(openapi.document(ROUTES, version=version))


ROUTES: tuple[Route, ...] = (
    *auth.ROUTES,
    *accounts.ROUTES,
    *processes.ROUTES,
    *models.ROUTES,
    *projects.ROUTES,
    *sessions.ROUTES,
    *tasks.ROUTES,
    *approvals.ROUTES,
    *events.ROUTES,
    *stream.ROUTES,
    *workspace.ROUTES,
    *usage.ROUTES,
    *operate.ROUTES,
    description,
)

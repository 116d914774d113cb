"""What a person who opens the address sees, and what a load balancer and a client generator ask for."""

from html import escape
from typing import Final

from msgspec import Struct
from starlette.responses import HTMLResponse

from zene.domain.errors import Unavailable
from zene.gateway.calls import Call
from zene.gateway.routing import route

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Zene</title>
<h1>Zene {version}</h1>
<p>This server runs coding agents, each session in a sandbox of its own. It is used over HTTP
(<a href="/openapi.json">OpenAPI</a>) and from the command line:</p>
<pre>zene login {address}
zene run "Fix the failing test" --project .</pre>
<p>Is it up: <a href="/healthz">/healthz</a>. Is it ready: <a href="/readyz">/readyz</a>.
Keys of its tokens: <a href="/.well-known/jwks.json">/.well-known/jwks.json</a>.</p>
</html>
"""


class Health(Struct, frozen=True):
    """That it is well."""

    status: str


@route("GET", "/", access="public", media="text/html")
async def page(call: Call) -> HTMLResponse:
    """A page saying what runs here and where to go on."""
    terms = call.parts.terms
    return HTMLResponse(_PAGE.format(version=escape(terms.version), address=escape(terms.address)))


@route("GET", "/healthz", access="public")
async def alive(_call: Call) -> Health:
    """Whether the process answers."""
    return Health("ok")


@route("GET", "/readyz", access="public")
async def ready(call: Call) -> Health:
    """Whether requests are served: 503 once the gateway is going away. What it rests on is not asked: where that
    is away, every gateway answers so, request by request.
    """
    if call.parts.followers.draining:
        raise Unavailable("This gateway is going away.", code="draining")
    return Health("ready")


ROUTES = (page, alive, ready)

"""Routes: each says in one place its method and path, who may call it, and what it takes and answers.

The signature of a handler is its contract: `body` and `query` are read into the types they are annotated
with, and the same types make the OpenAPI document.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, get_args, get_type_hints

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from zene.domain.errors import Forbidden, InvalidInput, SetupError, Unauthorized, ZeneError
from zene.domain.users import Role
from zene.gateway.bodies import check_text, read_json
from zene.gateway.calls import Call
from zene.gateway.meters import ROUTE
from zene.gateway.parts import Parts
from zene.gateway.signin import Caller

Access = Literal["public", "viewer", "member", "admin"]
Handler = Callable[..., Awaitable[object]]

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
_ANSWER: Final = "zene.answer"  # in the scope: what is still to be sent
_ROLES: Final[Mapping[Access, frozenset[Role]]] = {
    "viewer": frozenset(Role),
    "member": frozenset({Role.MEMBER, Role.ADMIN}),
    "admin": frozenset({Role.ADMIN}),
}


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path. `access` is the least role that may call it; `public` needs no sign-in."""

    method: str
    path: str
    access: Access
    status: int
    media: str
    handler: Handler
    body: type[Struct] | None
    query: type[Struct] | None
    answer: Any

    async def __call__(self, call: Call) -> ASGIApp:
        """Read what the handler takes, call it, and make its answer one that can be sent."""
        taken: dict[str, object] = {}
        if self.query is not None or call.request.url.query:
            taken["query"] = read_query(call.request, self.query or _NoQuery)
        if self.query is None:
            taken.pop("query", None)
        if self.body is not None:
            taken["body"] = await read_json(call.request, self.body)
        return self._sendable(await self.handler(call, **taken))

    def _sendable(self, answer: object) -> ASGIApp:
        if answer is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        if isinstance(answer, Struct):
            return Response(msgspec.json.encode(answer), self.status, media_type=JSON)
        if callable(answer):
            return answer
        raise TypeError(f"{self.path} answered with a {type(answer).__name__}")


class _NoQuery(Struct, forbid_unknown_fields=True):
    """Of a route that takes no parameters."""


def route(
    method: str, path: str, *, access: Access, status: int = 200, media: str = JSON
) -> Callable[[Handler], Route]:
    """Make a handler a route."""

    def declare(handler: Handler) -> Route:
        hints = get_type_hints(handler, include_extras=True)
        return Route(
            method=method,
            path=path,
            access=access,
            status=status,
            media=media,
            handler=handler,
            body=hints.get("body"),
            query=hints.get("query"),
            answer=hints.get("return"),
        )

    return declare


def paths(routes: Iterable[Route], parts: Parts) -> list[BaseRoute]:
    """The routes by their paths. Raises SetupError for one that does not say who may call it, or is there twice."""
    by_path: dict[str, dict[str, Route]] = {}
    for each in routes:
        if each.access not in get_args(Access):
            raise SetupError(f"{each.method} {each.path} does not declare who may call it.")
        if inspect.getdoc(each.handler) is None:
            raise SetupError(f"{each.method} {each.path} does not say what it does.")
        methods = by_path.setdefault(each.path, {})
        if methods.setdefault(each.method, each) is not each:
            raise SetupError(f"{each.method} {each.path} is declared twice.")
    return [Path(path, Endpoint(methods, parts)) for path, methods in by_path.items()]


class Endpoint:
    """A path: finds the route by method, lets the caller in or not, and leaves the answer to `Answers`."""

    def __init__(self, methods: Mapping[str, Route], parts: Parts) -> None:
        self._methods = methods
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Find the answer to one request. Errors come out; `Problems` answers them."""
        request = Request(scope, receive)
        chosen = self._route(request.method)
        scope[ROUTE] = (chosen.method, chosen.path)
        caller = await self._admit(chosen, request)
        scope[_ANSWER] = await chosen(Call(self._parts, request, caller))

    def _route(self, method: str) -> Route:
        """HEAD is as good as GET, but for a stream, which would never end."""
        wanted = "GET" if method == "HEAD" else method
        found = self._methods.get(wanted)
        if found is None or (method == "HEAD" and found.media == EVENT_STREAM):
            raise ZeneError(
                f"This path does not take {method}.",
                code="method_not_allowed",
                status=HTTPStatus.METHOD_NOT_ALLOWED,
                details={"allow": sorted(self._methods)},
            )
        return found

    async def _admit(self, chosen: Route, request: Request) -> Caller | None:
        peer = request.client.host if request.client else "unknown"
        if chosen.access == "public":
            self._parts.rate.take(peer)
            return None
        try:
            caller = await self._parts.sign_ins.authenticate(_bearer_token(request))
        except Unauthorized:
            self._parts.rate.take(peer)
            raise
        self._parts.rate.take(caller.user.id)
        if caller.user.role not in _ROLES[chosen.access]:
            raise Forbidden(f"Only a {chosen.access} may do this; you are a {caller.user.role}.")
        return caller


class Answers:
    """Sends what an endpoint has answered once all that led to it is done: a stream holds nothing of that for as
    long as it lasts, and wakes nothing of it with each event.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then send its answer."""
        await self._app(scope, receive, send)
        answer: ASGIApp | None = scope.pop(_ANSWER, None)
        if answer is not None:
            await answer(scope, receive, send)


def read_query(request: Request, shape: type[Struct]) -> Struct:
    """The query's parameters as `shape`. Raises InvalidInput for one that is unknown, doubled or does not fit."""
    pairs = request.query_params.multi_items()
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InvalidInput("A parameter of the query is there twice.")
    for value in values.values():
        check_text(value)
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as err:
        raise InvalidInput(f"The query does not fit: {err}.") from err


def _bearer_token(request: Request) -> str:
    stated = request.headers.getlist("authorization")
    if len(stated) > 1:
        raise InvalidInput("There is more than one Authorization header.", status=400)
    if not stated:
        raise Unauthorized("Sign in first: this needs an Authorization header.")
    scheme, _, token = stated[0].partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("Only bearer tokens are taken.")
    return token

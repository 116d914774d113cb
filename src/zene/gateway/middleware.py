"""What every request passes before it is routed: a name for it, and the checks that need no route.

Raw ASGI, so that a stream costs no more than its events.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zene import telemetry
from zene.domain.errors import Forbidden, InvalidInput, ZeneError
from zene.gateway.meters import Meters

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 << 10
_SAFE_METHODS: Final = {"GET", "HEAD", "OPTIONS", "TRACE"}
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Envelope:
    """Counts requests, gives each an id and a trace (the client's, where they are plain ones), and each answer its
    security headers.
    """

    def __init__(self, app: ASGIApp, *, new_id: Callable[[str], str], meters: Meters) -> None:
        self._app = app
        self._meters = meters
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its id in the scope and inside its trace."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = stated if _REQUEST_ID.fullmatch(stated) else self._new_id("req").encode()
        scope["zene.request_id"] = request_id.decode()
        began = time.monotonic()

        def with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self._meters.answered(scope, message["status"], time.monotonic() - began)
                message["headers"] = [
                    *message.get("headers", ()),
                    *_SECURITY_HEADERS,
                    (b"x-request-id", request_id),
                    *((name.encode(), value.encode()) for name, value in trace.items()),
                ]
            return send(message)

        with telemetry.traced(_trace(scope["headers"])):
            trace = telemetry.traceparent()
            await self._app(scope, receive, with_headers)


def _trace(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The trace that the caller has begun, or a new one."""
    stated = [value for name, value in headers if name == b"traceparent"]
    return telemetry.trace_id(stated[0].decode("latin-1") if len(stated) == 1 else None)


class Guard:
    """Refuses what no route should see: too many headers, another host's name, another site's page."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise the ZeneError that applies, or pass the request on."""
        if scope["type"] == "http":
            headers: list[tuple[bytes, bytes]] = scope["headers"]
            _check_size(headers)
            host = self._host(headers)
            _check_origin(scope, headers, host)
        await self._app(scope, receive, send)

    def _host(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        stated = [value for name, value in headers if name == b"host"]
        if len(stated) != 1:
            raise InvalidInput("A request has exactly one Host header.", status=400)
        host = stated[0].decode("latin-1").lower()
        if _name(host) not in self._hosts:
            raise ZeneError(
                "This is not the server of that host.",
                code="misdirected",
                status=HTTPStatus.MISDIRECTED_REQUEST,
            )
        return host


def _name(host: str) -> str:
    """The host without its port, and an IPv6 address without its brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _check_size(headers: list[tuple[bytes, bytes]]) -> None:
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES
    ):
        raise ZeneError(
            f"The headers are more than {MAX_HEADERS}, or larger than {MAX_HEADER_BYTES} bytes.",
            code="headers_too_large",
            status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        )


def _check_origin(
    scope: MutableMapping[str, Any], headers: Iterable[tuple[bytes, bytes]], host: str
) -> None:
    """Refuse a change that a page of another site asks for. Programs send none of these headers."""
    if scope["method"] in _SAFE_METHODS:
        return
    fetched = dict(headers)
    origin = fetched.get(b"origin")
    if fetched.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"} or (
        origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host
    ):
        raise Forbidden("A page of another site may not change anything here.", code="cross_site")

"""The one place where an error becomes an answer: a problem document (RFC 9457) with a stable `code`."""

import asyncio
import logging
import math
from collections.abc import Awaitable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zene.domain.errors import ZeneError
from zene.gateway.meters import Meters

_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 1 << 30

log = logging.getLogger("zene.gateway")


class Problems:
    """Answers what the application raises. An answer that has begun is broken off instead."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer with a problem document where that raises."""
        begun = False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            return send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as err:
            if begun:
                raise  # the server logs it and closes the connection
            known = _known(err, scope)
            self._meters.failed(known.code)
            answer = document(known)
            if known.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                await _answer_whoever_still_sends(answer, receive, send)
            else:
                await answer(scope, receive, send)


async def _answer_whoever_still_sends(answer: Response, receive: Receive, send: Send) -> None:
    """Answer at once, then take what still comes for a while and drop it. A connection that is closed with
    bytes unread takes the answer along before a client that sends first and reads then has seen it.
    """
    await send(
        {
            "type": "http.response.start",
            "status": answer.status_code,
            "headers": answer.raw_headers,
        }
    )
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await _drop(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drop(receive: Receive) -> None:
    dropped = 0
    while dropped < _LINGER_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
        dropped += len(message.get("body", b""))


def _known(err: Exception, scope: Scope) -> ZeneError:
    """What a request that failed is told. What is not a ZeneError is logged and says nothing."""
    if isinstance(err, ZeneError) and err.status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return err
    request_id = scope.get("zene.request_id")
    log.error("request.failed request=%s path=%s", request_id, scope["path"], exc_info=err)
    return ZeneError(f"Zene failed. The log says more under request {request_id}.")


def document(err: ZeneError) -> Response:
    """The problem document itself, with `Retry-After` and `Connection` where they belong."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(err.status).phrase,
        "status": err.status,
        "code": err.code,
        "message": err.message,
        "detail": err.message,
        "details": err.details,
    }
    headers = {}
    if err.retry_after is not None or err.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(math.ceil(max(err.retry_after or 1, 1)))
    if err.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if err.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"  # the rest of the body is not read
    allowed = (err.details or {}).get("allow")
    if err.status == HTTPStatus.METHOD_NOT_ALLOWED and allowed:
        headers["allow"] = ", ".join(allowed)
    content = msgspec.json.encode(body)
    return Response(content, err.status, headers, media_type="application/problem+json")

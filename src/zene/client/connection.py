"""Requests that survive what a client can mend: expired tokens, a busy server, a server that restarts."""

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from zene.domain.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    ZeneError,
)
from zene.gateway.shapes import Tokens

T = TypeVar("T")
Content = bytes | Callable[[], AsyncIterable[bytes]]  # bytes, or what begins them anew for each try

_TRIES: Final = 6
_TRIES_TO_REACH: Final = 3  # a server that restarts is back in half a second
_PAUSE_SECONDS: Final = 0.2
_LONGEST_WAIT_SECONDS: Final = 30.0
_TIMEOUT: Final = httpx.Timeout(60, connect=10)
_ERRORS: Final[Mapping[int, type[ZeneError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: TooMany,
    503: Unavailable,
}


class _Problem(Struct):
    """What a problem document says; every field is optional, since a proxy may answer too."""

    code: str = "unexpected_answer"
    message: str = "The server answered with something that is not Zene's."
    details: dict[str, Any] | None = None


def _trusted() -> ssl.SSLContext:
    """What this machine trusts, an authority of the installation's own included; SSL_CERT_FILE names another."""
    return ssl.create_default_context()


class Connection:
    """A signed-in connection. `refreshed` is told of new tokens, to keep them for other programs.

    Two programs may share a sign-in: whoever refreshes second is given the same successor.
    """

    def __init__(
        self,
        url: str,
        *,
        tokens: Tokens | None = None,
        refreshed: Callable[[Tokens], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.tokens = tokens
        self._refreshed = refreshed
        self._refreshing = asyncio.Lock()
        parts = urlsplit(self.url)
        local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=_TIMEOUT,
            verify=_trusted() if parts.scheme == "https" else False,
            trust_env=not local,
        )

    async def close(self) -> None:
        """Let go of the sockets; twice is harmless."""
        await self._http.aclose()

    def keep(self, tokens: Tokens | None) -> None:
        """Go on with these tokens."""
        self.tokens = tokens
        if tokens is not None and self._refreshed is not None:
            self._refreshed(tokens)

    async def ask(
        self,
        method: str,
        path: str,
        shape: type[T],
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | Content | None = None,
        key: str | None = None,
    ) -> T:
        """A request, its body JSON where it is a mapping, and the answer as `shape`. What is None is left out.

        With a `key` (`Idempotency-Key`) trying again makes nothing twice.
        """
        headers = {"idempotency-key": key} if key else {}
        if isinstance(body, Mapping):
            headers["content-type"] = "application/json"
            try:
                body = msgspec.json.encode(_given(body))
            except UnicodeEncodeError as err:
                raise InvalidInput("What was given is not UTF-8 text. Convert it first.") from err
        async with self.opened(
            method, path, query=query, headers=headers, content=body
        ) as response:
            raw = await response.aread()
        return decoded(raw, shape)

    @asynccontextmanager
    async def opened(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
    ) -> AsyncGenerator[httpx.Response, None]:
        """The answer, its body unread. Refreshes an expired token once; comes back later where the server
        says so. Raises the ZeneError that the server named, Unavailable where there is no server.
        """
        request = {"params": _given(query), "headers": dict(headers or {})}
        response = await self._persist(method, path, request, content)
        try:
            if response.is_error:
                raise _error(response, await response.aread())
            yield response
        except httpx.HTTPError as err:
            raise self._unreachable(err) from err
        finally:
            await response.aclose()

    async def _persist(
        self, method: str, path: str, request: Mapping[str, Any], content: Content | None
    ) -> httpx.Response:
        """Try until the answer is final, or there were enough tries."""
        repeatable = method != "POST" or "idempotency-key" in request["headers"]
        refreshed = False
        for tries in range(1, _TRIES + 1):
            used = self.tokens
            try:
                response = await self._send(method, path, request, content)
            except Unavailable:
                if not repeatable or tries >= _TRIES_TO_REACH:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * tries)
                continue
            if response.status_code == 401 and used and not refreshed and "/auth/" not in path:
                refreshed = True
                await response.aclose()
                await self._refresh(used)
            elif response.status_code in {429, 503} and tries < _TRIES:
                await response.aclose()
                await asyncio.sleep(_wait_seconds(response))
            else:
                return response
        raise AssertionError("the last try returns or raises")

    async def _send(
        self, method: str, path: str, request: Mapping[str, Any], content: Content | None
    ) -> httpx.Response:
        headers = request["headers"]
        if self.tokens is not None:
            headers = headers | {"authorization": f"Bearer {self.tokens.access_token}"}
        built = self._http.build_request(
            method,
            path,
            params=request["params"],
            headers=headers,
            content=content() if callable(content) else content,
        )
        try:
            return await self._http.send(built, stream=True)
        except httpx.HTTPError as err:
            raise self._unreachable(err) from err

    async def _refresh(self, used: Tokens | None) -> None:
        """New tokens for those that were refused, unless another request has fetched them meanwhile."""
        async with self._refreshing:
            if self.tokens is not used or used is None:
                return
            if not used.refresh_token:
                raise Unauthorized("The access token is not valid, or has expired. Get a new one.")
            self.tokens = None
            try:
                body = {"refresh_token": used.refresh_token}
                self.keep(await self.ask("POST", "/v1/auth/refresh", Tokens, body=body))
            except Unavailable:
                self.tokens = used
                raise

    def _unreachable(self, err: Exception) -> Unavailable:
        reason = str(err) or type(err).__name__
        hint = "Is the server running?"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            hint = "Name a file with the certificate of its authority in SSL_CERT_FILE."
        return Unavailable(f"Cannot reach {self.url}: {reason}. {hint}", code="unreachable")


def decoded(raw: bytes, shape: type[T]) -> T:
    """What the server said, as `shape`. Raises ZeneError where it does not fit."""
    try:
        return msgspec.json.decode(raw or b"null", type=shape)
    except msgspec.MsgspecError as err:
        raise ZeneError(f"The server's answer does not fit: {err}.", code="bad_answer") from err


def _given(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _wait_seconds(response: httpx.Response) -> float:
    """What the server asks for, and a little more, so that not all come back at once."""
    try:
        asked = float(response.headers.get("retry-after", "1"))
    except ValueError:
        asked = 1.0
    return min(asked, _LONGEST_WAIT_SECONDS) + random.uniform(0, 0.25)  # noqa: S311 - spreads load


def _error(response: httpx.Response, raw: bytes) -> ZeneError:
    try:
        problem = msgspec.json.decode(raw, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem()
    kind = _ERRORS.get(
        response.status_code, InvalidInput if response.is_client_error else ZeneError
    )
    return kind(
        problem.message,
        code=problem.code,
        details=problem.details,
        status=response.status_code,
        retry_after=_wait_seconds(response) if response.status_code in {429, 503} else None,
    )

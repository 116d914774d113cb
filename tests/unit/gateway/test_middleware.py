"""The checks that need no route."""

import pytest
from starlette.types import Receive, Scope, Send

from zene.domain.errors import ZeneError
from zene.gateway.middleware import Guard

Headers = list[tuple[bytes, bytes]]
HOST = (b"host", b"zene.test:8420")


async def passes(method: str, headers: Headers) -> int:
    """200 where the request gets through, else the status it is refused with."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        return None

    async def nothing() -> dict[str, object]:
        raise AssertionError("the body is not read")

    async def ignore(_message: object) -> None:
        return None

    guard = Guard(app, hosts=frozenset({"zene.test", "::1"}))
    try:
        await guard({"type": "http", "method": method, "headers": headers}, nothing, ignore)
    except ZeneError as err:
        return err.status
    return 200


@pytest.mark.parametrize("host", [b"zene.test", b"zene.test:1", b"ZENE.TEST", b"[::1]", b"[::1]:9"])
async def test_a_request_for_this_host_passes(host: bytes) -> None:
    assert await passes("GET", [(b"host", host)]) == 200


@pytest.mark.parametrize(
    "host",
    [
        b"evil",
        b"evil:8420",
        b"zene.test.evil",
        b"zene.test:8420:evil",
        b"",
        b"zene.test.",
        b"\xff",
        b"[zene.test",
        b"::1",
    ],
)
async def test_a_request_for_another_host_is_misdirected(host: bytes) -> None:
    assert await passes("GET", [(b"host", host)]) == 421


@pytest.mark.parametrize("headers", [[], [HOST, HOST]])
async def test_a_request_names_one_host(headers: Headers) -> None:
    assert await passes("GET", headers) == 400


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"b")] * 200,
        [(b"a", b"b" * 65_000)],
        [(b"authorization", b"Bearer " + b"a" * 10**6)],
    ],
)
async def test_too_many_or_too_large_headers_are_refused(headers: Headers) -> None:
    assert await passes("GET", [HOST, *headers]) == 431


@pytest.mark.parametrize(
    "header",
    [
        (b"origin", b"https://evil.test"),
        (b"origin", b"null"),
        (b"origin", b"http://zene.test:8421"),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-site", b"same-site"),
    ],
)
async def test_a_page_of_another_site_changes_nothing(header: tuple[bytes, bytes]) -> None:
    assert await passes("POST", [HOST, header]) == 403
    assert await passes("GET", [HOST, header]) == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"origin", b"http://zene.test:8420"), (b"sec-fetch-site", b"same-origin")],
        [(b"sec-fetch-site", b"none")],
    ],
)
async def test_programs_and_own_pages_may_change_things(headers: Headers) -> None:
    assert await passes("DELETE", [HOST, *headers]) == 200

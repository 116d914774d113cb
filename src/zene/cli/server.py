"""Which server a command talks to, and as whom."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

from zene.cli import credentials
from zene.cli.credentials import SignIn
from zene.client import AsyncClient
from zene.domain.errors import InvalidInput, Unauthorized
from zene.gateway.shapes import Tokens


@asynccontextmanager
async def connected(server: str | None) -> AsyncIterator[AsyncClient]:
    """A client that is signed in: to `server`, else to `ZENE_URL`, else to the server signed in to last.

    Raises Unauthorized where nobody is signed in there, with what to do.
    """
    known = credentials.read()
    url = server or os.environ.get("ZENE_URL") or known.current
    if url is None:
        raise Unauthorized("Nobody is signed in. Run: zene login URL")
    url = normal(url)
    if token := os.environ.get("ZENE_TOKEN"):
        async with AsyncClient(
            url, tokens=Tokens(access_token=token, refresh_token="", expires_in=0)
        ) as client:
            yield client
        return
    if url not in known.servers:
        raise Unauthorized(f"Nobody is signed in to {url}. Run: zene login {url}")
    signed_in = known.servers[url]
    tokens = Tokens(
        access_token=signed_in.access_token,
        refresh_token=signed_in.refresh_token,
        expires_in=0,  # unknown, and not asked: the server says when it has expired
    )
    refreshed = partial(keep, url, signed_in.email)
    async with AsyncClient(url, tokens=tokens, refreshed=refreshed) as client:
        try:
            yield client
        except Unauthorized as err:
            raise Unauthorized(f"{err.message} Run: zene login {url}", code=err.code) from err


def keep(url: str, email: str, tokens: Tokens, *, as_current: bool = False) -> None:
    """Keep a sign-in for later commands."""
    sign_in = SignIn(
        email=email, access_token=tokens.access_token, refresh_token=tokens.refresh_token
    )
    credentials.keep(url, sign_in, as_current=as_current)


def normal(url: str) -> str:
    """A server's URL in its one spelling. Raises InvalidInput for what is none."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise InvalidInput(f"{url} is no server's URL; it looks like https://zene.example:8443.")
    return url.rstrip("/")

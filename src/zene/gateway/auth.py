"""Signing in and out, over HTTP."""

from typing import Annotated

from msgspec import Meta, Struct

from zene.bus.base import REVOKED
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.passwords import MAX_LENGTH
from zene.gateway.routing import route


class Login(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who signs in."""

    email: Annotated[str, Meta(min_length=1, max_length=254)]
    password: Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH)]


class Refresh(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The refresh token that is exchanged."""

    refresh_token: Annotated[str, Meta(min_length=1, max_length=256)]


class KeySet(Struct, frozen=True):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]


@route("POST", "/v1/auth/login", access="public")
async def login(call: Call, body: Login) -> shapes.Tokens:
    """Sign in with e-mail and password."""
    return await call.parts.sign_ins.login(body.email, body.password)


@route("POST", "/v1/auth/refresh", access="public")
async def refresh(call: Call, body: Refresh) -> shapes.Tokens:
    """Exchange a refresh token for new tokens; one that was used already ends the sign-in."""
    return await call.parts.sign_ins.refresh(body.refresh_token)


@route("POST", "/v1/auth/logout", access="viewer", status=204)
async def logout(call: Call) -> None:
    """End this sign-in, with all its tokens and streams."""
    await call.parts.sign_ins.logout(call.caller)
    await call.parts.bus.tell(call.user.id, REVOKED)


@route("GET", "/.well-known/jwks.json", access="public")
async def keys(call: Call) -> KeySet:
    """The keys that access tokens are verified with."""
    return KeySet(await call.parts.sign_ins.public_keys())


@route("GET", "/v1/me", access="viewer")
async def me(call: Call) -> shapes.User:
    """Who is signed in."""
    return shapes.user(call.user)


ROUTES = (login, refresh, logout, keys, me)

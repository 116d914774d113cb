"""Users, for administrators."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from zene.bus.base import REVOKED
from zene.domain.errors import Conflict
from zene.domain.events import Event
from zene.domain.users import Role, User, email_address
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.creating import Created, create
from zene.gateway.passwords import MAX_LENGTH, MIN_LENGTH
from zene.gateway.routing import route
from zene.store import users
from zene.store.base import Unit

Password = Annotated[str, Meta(min_length=MIN_LENGTH, max_length=MAX_LENGTH)]


class NewUser(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who may sign in from now on."""

    email: Annotated[str, Meta(min_length=3, max_length=254)]
    password: Password
    role: Role = Role.MEMBER


class UserChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes. A new password, and being disabled, ends every sign-in of the user."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


@route("POST", "/v1/admin/users", access="admin", status=201)
async def add(call: Call, body: NewUser) -> Created[shapes.User]:
    """Add a user. 409 where this machine cannot keep the sandboxes of several users apart."""
    if reason := call.parts.outside.users_refused():
        raise Conflict(reason, code="weak_sandbox")
    email = email_address(body.email)
    hashed = await call.parts.passwords.hash(body.password)
    user_id, now = call.new_id("usr"), call.now()

    def make() -> Unit[tuple[shapes.User, Sequence[Event]]]:
        user = yield from users.create_user(user_id, email, hashed, body.role, now)
        return shapes.user(user), ()

    return await create(call, body, make)


@route("GET", "/v1/admin/users", access="admin")
async def everybody(call: Call, query: shapes.PageQuery) -> shapes.Page[shapes.User]:
    """All users, oldest first."""
    found, cursor = await call.parts.store.read(users.list_users, query.after("usr"), query.limit)
    return shapes.Page(items=[shapes.user(each) for each in found], next_cursor=cursor)


@route("PATCH", "/v1/admin/users/{user_id}", access="admin")
async def change(call: Call, body: UserChange) -> shapes.User:
    """Change a user's role or password, disable or enable the user. Nobody can demote or disable themselves."""
    user_id = call.id("user_id", "usr")
    if user_id == call.user.id and (body.disabled or body.role not in {None, Role.ADMIN}):
        raise Conflict("You cannot disable or demote yourself.", code="own_account")
    hashed = None if body.password is None else await call.parts.passwords.hash(body.password)
    user = await call.parts.store.write(_changed, user_id, body, hashed, call.now())
    await call.parts.bus.tell(user_id, REVOKED)
    return shapes.user(user)


def _changed(user_id: str, body: UserChange, hashed: str | None, now: int) -> Unit[User]:
    """All of the change in one transaction."""
    user = yield from users.get_user(user_id)
    if body.role is not None:
        user = yield from users.set_role(user_id, body.role)
    if hashed is not None:
        user = yield from users.set_password(user_id, hashed, now)
    if body.disabled is not None:
        user = yield from users.set_disabled(user_id, now if body.disabled else None)
    return user


ROUTES = (add, everybody, change)

"""Users, for administrators."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from zene.bus.base import REVOKED
from zene.domain.errors import Conflict
from zene.domain.events import Event
from zene.domain.quotas import Period, Quota
from zene.domain.users import Role, User, email_address
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.creating import Created, create
from zene.gateway.passwords import MAX_LENGTH, MIN_LENGTH
from zene.gateway.publishing import publish
from zene.gateway.routing import route
from zene.store import quotas, shortage, users
from zene.store.base import Unit

_RESUMED_AT_ONCE = 50  # tasks; a worker's sweep queues what waits beyond that

Password = Annotated[str, Meta(min_length=MIN_LENGTH, max_length=MAX_LENGTH)]
ActiveTasks = Annotated[int, Meta(ge=1, le=10_000)]


class Allowance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quota: at most so many tokens, in all or in each day or month of UTC."""

    tokens: Annotated[int, Meta(ge=0, le=1 << 53)]
    period: Period = "total"

    def quota(self) -> Quota:
        """As the store takes it."""
        return Quota(tokens=self.tokens, period=self.period)


class NewUser(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who may sign in from now on."""

    email: Annotated[str, Meta(min_length=3, max_length=254)]
    password: Password
    role: Role = Role.MEMBER
    quota: Allowance | None = None
    max_active_tasks: ActiveTasks | None = None


class UserChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes. A new password, and being disabled, ends every sign-in of the user. Null lifts the quota,
    or has the server's own cap on active tasks hold.
    """

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None
    quota: Allowance | UnsetType | None = UNSET
    max_active_tasks: ActiveTasks | UnsetType | None = UNSET


@route("POST", "/v1/admin/users", access="admin", status=201)
async def add(call: Call, body: NewUser) -> Created[shapes.User]:
    """Add a user. 409 where this machine cannot keep the sandboxes of several users apart."""
    if reason := call.parts.outside.users_refused():
        raise Conflict(reason, code="weak_sandbox")
    email = email_address(body.email)
    hashed = await call.parts.passwords.hash(body.password)
    user_id, now = call.new_id("usr"), call.now()

    def make() -> Unit[tuple[shapes.User, Sequence[Event]]]:
        yield from users.create_user(user_id, email, hashed, body.role, now)
        user, _ = yield from _allowed(user_id, body.quota, body.max_active_tasks, now)
        return shapes.user(user), ()

    return await create(call, body, make)


@route("GET", "/v1/admin/users", access="admin")
async def everybody(call: Call, query: shapes.PageQuery) -> shapes.Page[shapes.User]:
    """All users, oldest first."""
    found, cursor = await call.parts.store.read(users.list_users, query.after("usr"), query.limit)
    return shapes.Page(items=[shapes.user(each) for each in found], next_cursor=cursor)


@route("PATCH", "/v1/admin/users/{user_id}", access="admin")
async def change(call: Call, body: UserChange) -> shapes.User:
    """Change a user's role, password, quota or cap on active tasks, disable or enable the user. Nobody can
    demote or disable themselves.
    """
    user_id = call.id("user_id", "usr")
    if user_id == call.user.id and (body.disabled or body.role not in {None, Role.ADMIN}):
        raise Conflict("You cannot disable or demote yourself.", code="own_account")
    parts = call.parts
    hashed = None if body.password is None else await parts.passwords.hash(body.password)
    user, resumed = await parts.store.write(_changed, user_id, body, hashed, call.now())
    await parts.bus.tell(user_id, REVOKED)
    for _, events in resumed:
        await publish(parts.bus, events)
    await parts.bus.wake()
    return shapes.user(user)


def _changed(
    user_id: str, body: UserChange, hashed: str | None, now: int
) -> Unit[tuple[User, Sequence[tuple[str, Sequence[Event]]]]]:
    """All of the change in one transaction; and what it has queued again."""
    yield from users.get_user(user_id)
    if body.role is not None:
        yield from users.set_role(user_id, body.role)
    if hashed is not None:
        yield from users.set_password(user_id, hashed, now)
    if body.disabled is not None:
        yield from users.set_disabled(user_id, now if body.disabled else None)
    return (yield from _allowed(user_id, body.quota, body.max_active_tasks, now))


def _allowed(
    user_id: str,
    quota: Allowance | UnsetType | None,
    max_active_tasks: int | UnsetType | None,
    now: int,
) -> Unit[tuple[User, Sequence[tuple[str, Sequence[Event]]]]]:
    """Set what was said; the user, and what tasks that waited do now."""
    resumed: Sequence[tuple[str, Sequence[Event]]] = ()
    if max_active_tasks is not UNSET:
        yield from users.set_max_active_tasks(user_id, max_active_tasks)
    if quota is not UNSET:
        yield from quotas.set_quota(user_id, None if quota is None else quota.quota(), now)
        resumed = yield from shortage.resume(user_id, now=now, limit=_RESUMED_AT_ONCE)
    return (yield from users.get_user(user_id)), resumed


ROUTES = (add, everybody, change)

"""Sessions: begun, listed, changed, deleted."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from zene.bus.base import Signal
from zene.domain.events import Event
from zene.domain.sessions import ApprovalPolicy
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.creating import Created, create
from zene.gateway.models import chosen
from zene.gateway.publishing import publish
from zene.gateway.routing import route
from zene.llm.base import Effort
from zene.store import sessions
from zene.store.base import Unit

Title = Annotated[str, Meta(max_length=200)]


class NewSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation on a project, or on an empty workspace."""

    project_id: Annotated[str, Meta(max_length=64)] | None = None
    title: Title = ""
    model: Annotated[str, Meta(max_length=200)] | None = None
    effort: Effort | None = None
    approval_policy: ApprovalPolicy = "auto"


class SessionChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes, from the next task on."""

    title: Title | None = None
    model: Annotated[str, Meta(max_length=200)] | None = None
    effort: Effort | None = None
    approval_policy: ApprovalPolicy | None = None


class SessionsQuery(shapes.PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which sessions."""

    project_id: Annotated[str, Meta(max_length=64)] | None = None


@route("POST", "/v1/sessions", access="member", status=201)
async def begin(call: Call, body: NewSession) -> Created[shapes.Session]:
    """Begin a session."""
    model = chosen(call.parts.terms, body.model)
    session_id, now = call.new_id("ses"), call.now()

    def make() -> Unit[tuple[shapes.Session, Sequence[Event]]]:
        session, events = yield from sessions.create_session(
            id=session_id,
            user_id=call.user.id,
            project_id=body.project_id,
            title=body.title,
            model=model,
            effort=body.effort,
            approval_policy=body.approval_policy,
            now=now,
        )
        return shapes.session(session), events

    return await create(call, body, make, session_id=session_id)


@route("GET", "/v1/sessions", access="viewer")
async def all_of_them(call: Call, query: SessionsQuery) -> shapes.Page[shapes.Session]:
    """The caller's sessions, newest first."""
    found, cursor = await call.parts.store.read(
        sessions.list_sessions, call.user.id, query.after("ses"), query.limit, query.project_id
    )
    return shapes.Page(items=[shapes.session(each) for each in found], next_cursor=cursor)


@route("GET", "/v1/sessions/{session_id}", access="viewer")
async def one(call: Call) -> shapes.Session:
    """One session."""
    session_id = call.id("session_id", "ses")
    return shapes.session(
        await call.parts.store.read(sessions.get_session, call.user.id, session_id)
    )


@route("PATCH", "/v1/sessions/{session_id}", access="member")
async def change(call: Call, body: SessionChange) -> shapes.Session:
    """Change a session's title or settings."""
    session_id = call.id("session_id", "ses")
    if body.model is not None:
        chosen(call.parts.terms, body.model)
    session, events = await call.parts.store.write(
        sessions.update_session,
        call.user.id,
        session_id,
        title=body.title,
        model=body.model,
        effort=body.effort,
        approval_policy=body.approval_policy,
        now=call.now(),
    )
    await publish(call.parts.bus, events)
    return shapes.session(session)


@route("DELETE", "/v1/sessions/{session_id}", access="member", status=204)
async def delete(call: Call) -> None:
    """Delete a session: its tasks end at once, its workspace and rows are removed soon after."""
    parts, session_id = call.parts, call.id("session_id", "ses")
    events = await parts.store.write(
        sessions.delete_session, call.user.id, session_id, call.now(), call.new_id("job")
    )
    await publish(parts.bus, events)
    await parts.bus.signal(Signal(kind="delete", session_id=session_id))
    await parts.bus.wake()


ROUTES = (begin, all_of_them, one, change, delete)

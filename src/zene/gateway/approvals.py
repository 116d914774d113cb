"""Approvals: calls that wait for a person, and the person's answer."""

from typing import Annotated

from msgspec import Meta, Struct

from zene.domain.approvals import ApprovalStatus, Decision, Scope
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.publishing import publish
from zene.gateway.routing import route
from zene.store import approvals


class ApprovalsQuery(shapes.PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which approvals."""

    status: ApprovalStatus = "pending"


class Answer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`once` binds to the exact arguments; `session` also allows the tool from now on in this session."""

    decision: Decision
    scope: Scope = "once"
    note: Annotated[str, Meta(max_length=2000)] = ""


@route("GET", "/v1/approvals", access="viewer")
async def all_of_them(call: Call, query: ApprovalsQuery) -> shapes.Page[shapes.Approval]:
    """The caller's approvals over all sessions, oldest first."""
    found, cursor = await call.parts.store.read(
        approvals.list_approvals, call.user.id, query.status, query.after("apr"), query.limit
    )
    return shapes.Page(items=[shapes.approval(each) for each in found], next_cursor=cursor)


@route("POST", "/v1/approvals/{approval_id}", access="member")
async def decide(call: Call, body: Answer) -> shapes.Approval:
    """Allow or deny a call. 409 where it has been decided, has expired or was withdrawn."""
    parts, approval_id = call.parts, call.id("approval_id", "apr")
    approval, events, _ = await parts.store.write(
        approvals.decide,
        call.user.id,
        approval_id,
        decision=body.decision,
        scope=body.scope,
        note=body.note,
        now=call.now(),
    )
    await publish(parts.bus, events)
    await parts.bus.wake()
    return shapes.approval(approval)


ROUTES = (all_of_them, decide)

"""Tasks: submitted, looked at, changed, cancelled. Submitting enqueues; the work is followed on the stream."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from zene import telemetry
from zene.bus.base import Signal
from zene.domain.errors import InvalidInput, TooLarge
from zene.domain.events import Event
from zene.domain.tasks import OnBusy
from zene.gateway import shapes
from zene.gateway.calls import Call
from zene.gateway.creating import Created, create
from zene.gateway.models import chosen
from zene.gateway.publishing import publish
from zene.gateway.routing import route
from zene.llm.base import Effort
from zene.store import steers, tasks, unstarted
from zene.store.base import Unit

Priority = Annotated[int, Meta(ge=-100, le=100)]


log = telemetry.logger(__name__)


class NewTask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request to the agent. `model` and `effort` are the session's where they are not named; of all
    that waits of the caller's, the task with the higher `priority` goes first.
    """

    prompt: Annotated[str, Meta(min_length=1)]
    model: Annotated[str, Meta(max_length=200)] | None = None
    effort: Effort | None = None
    max_tokens_total: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None
    priority: Priority = 0
    on_busy: OnBusy = "enqueue"


class TaskChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes of a task that was never started; `before` names the one of its session to go before."""

    prompt: Annotated[str, Meta(min_length=1)] | None = None
    model: Annotated[str, Meta(max_length=200)] | None = None
    effort: Effort | None = None
    priority: Priority | None = None
    max_tokens_total: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None
    before: Annotated[str, Meta(max_length=64)] | None = None


class NewSteer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to say to a task while it is worked on."""

    text: Annotated[str, Meta(min_length=1)]


@route("POST", "/v1/sessions/{session_id}/tasks", access="member", status=202)
async def submit(call: Call, body: NewTask) -> Created[shapes.Task]:
    """Ask the agent for something. It works on the session's tasks one at a time, in order. Where one is not
    finished, `on_busy` says whether to wait, to cancel what is worked on and go first, or to be refused.
    """
    parts, session_id = call.parts, call.id("session_id", "ses")
    _check_prompt(body.prompt, parts.terms.max_prompt_bytes)
    if body.model is not None:
        chosen(parts.terms, body.model)
    task_id, now, trace = call.new_id("tsk"), call.now(), telemetry.current_trace()
    interrupted: list[str] = []

    def make() -> Unit[tuple[shapes.Task, Sequence[Event]]]:
        made = yield from tasks.submit(
            id=task_id,
            user_id=call.user.id,
            session_id=session_id,
            prompt=body.prompt,
            model=body.model,
            effort=body.effort,
            max_tokens_total=body.max_tokens_total,
            priority=body.priority,
            on_busy=body.on_busy,
            trace_id=trace,
            now=now,
        )
        interrupted[:] = [made.interrupted] if made.interrupted else []
        return shapes.task(made.task, made.position), made.events

    answer = await create(call, body, make, status=202, session_id=session_id)
    for each in interrupted:
        await parts.bus.signal(Signal(kind="cancel", session_id=session_id, task_id=each))
    log.info("task.submitted", session=session_id)
    await parts.bus.wake()
    return answer


@route("GET", "/v1/sessions/{session_id}/tasks", access="viewer")
async def of_session(call: Call, query: shapes.PageQuery) -> shapes.Page[shapes.Task]:
    """The session's tasks, oldest first."""
    session_id = call.id("session_id", "ses")
    found, cursor = await call.parts.store.read(
        tasks.list_tasks, call.user.id, session_id, query.after("tsk"), query.limit
    )
    return shapes.Page(items=[shapes.task(*each) for each in found], next_cursor=cursor)


@route("GET", "/v1/tasks/{task_id}", access="viewer")
async def one(call: Call) -> shapes.Task:
    """One task."""
    task_id = call.id("task_id", "tsk")
    return shapes.task(*await call.parts.store.read(tasks.get_task, call.user.id, task_id))


@route("PATCH", "/v1/tasks/{task_id}", access="member")
async def change(call: Call, body: TaskChange) -> shapes.Task:
    """Change a task that was never started, or its place in the queue. 409 for any other."""
    parts, task_id = call.parts, call.id("task_id", "tsk")
    if body.prompt is not None:
        _check_prompt(body.prompt, parts.terms.max_prompt_bytes)
    if body.model is not None:
        chosen(parts.terms, body.model)
    to = unstarted.Change(**msgspec.structs.asdict(body))
    task, position, events = await parts.store.write(
        unstarted.change, call.user.id, task_id, to, call.now()
    )
    await publish(parts.bus, events)
    return shapes.task(task, position)


@route("DELETE", "/v1/tasks/{task_id}", access="member")
async def withdraw(call: Call) -> shapes.Task:
    """Withdraw a task that was never started: it ends cancelled. 409 for any other; twice is harmless."""
    parts, task_id = call.parts, call.id("task_id", "tsk")
    task, events = await parts.store.write(unstarted.withdraw, call.user.id, task_id, call.now())
    await publish(parts.bus, events)
    await parts.bus.wake()
    return shapes.task(task)


@route("POST", "/v1/tasks/{task_id}/cancel", access="member")
async def cancel(call: Call) -> shapes.Task:
    """Cancel a task, also one that waits. A finished one stays as it is."""
    parts, task_id = call.parts, call.id("task_id", "tsk")
    task, events, was_leased = await parts.store.write(
        tasks.request_cancel, call.user.id, task_id, call.now()
    )
    await publish(parts.bus, events)
    if was_leased:
        await parts.bus.signal(Signal(kind="cancel", session_id=task.session_id, task_id=task_id))
    await parts.bus.wake()
    return shapes.task(task)


@route("POST", "/v1/tasks/{task_id}/steer", access="member", status=202)
async def steer(call: Call, body: NewSteer) -> Created[shapes.Steer]:
    """Say something to a task that was started: it hears it before its next step, and ends no sooner. 409
    where it was never started, is being cancelled or has ended.
    """
    parts, task_id = call.parts, call.id("task_id", "tsk")
    _check_prompt(body.text, parts.terms.max_prompt_bytes)
    task, _ = await parts.store.read(tasks.get_task, call.user.id, task_id)
    steer_id, now = call.new_id("itm"), call.now()

    def make() -> Unit[tuple[shapes.Steer, Sequence[Event]]]:
        said = yield from steers.steer(call.user.id, task_id, steer_id, body.text, now)
        return shapes.steer(said), ()

    created = await create(call, body, make, status=202, session_id=task.session_id)
    await parts.bus.signal(Signal(kind="steer", session_id=task.session_id, task_id=task_id))
    return created


def _check_prompt(prompt: str, limit: int) -> None:
    if not prompt.strip():
        raise InvalidInput("There is no text in it.", code="empty_prompt")
    if len(prompt.encode()) > limit:
        raise TooLarge(f"The text is larger than {limit} bytes.", details={"limit": limit})


ROUTES = (submit, of_session, one, change, withdraw, cancel, steer)

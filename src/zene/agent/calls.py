"""Settling the calls that have no result: those just made, and those that an earlier run left.

A call's intent is committed before its effect, one call at a time where it may change something, so that
what was interrupted is known exactly. What may have run is never run again by itself, unless it only reads.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from zene.agent import permissions
from zene.agent.base import Batch, Finished
from zene.agent.desk import Desk
from zene.domain.approvals import Approval, arguments_hash
from zene.domain.closing import INTERRUPTED
from zene.domain.errors import (
    LeaseLost,
    SandboxGone,
    SandboxUnavailable,
    SetupError,
    Unavailable,
    ZeneError,
)
from zene.domain.events import ApprovalRequested, TaskWaiting, as_json
from zene.domain.messages import CallStatus, Item, ToolCall, ToolResult
from zene.domain.times import rfc3339
from zene.tools.base import Done, Tool, failed
from zene.tools.schema import decode
from zene.tools.text import shortened

DENIED = "Denied by the user. Do not try the same in another way; go on without it, or end and ask."
EXPIRED = "Not run: nobody allowed it in time."
OVERDUE = "Not run: the task's working time was used up."


class Ready(Struct, frozen=True):
    """A call that may run now."""

    item: Item
    call: ToolCall
    tool: Tool[Any]
    arguments: Struct

    @property
    def id(self) -> str:
        """Its item's id."""
        return self.item.id


class Question(Struct, frozen=True):
    """A call that a person must allow; `is_asked` when the question stands already."""

    ready: Ready
    is_asked: bool = False


Verdict = Ready | Question | ToolResult


async def settle(at: Desk) -> AsyncGenerator[Batch, None]:
    """Give every open call its result, or end the run with the question to a person. The last results are
    left to the next batch.
    """
    ready: list[Ready] = []
    questions: list[Question] = []
    for item, call in at.talk.open_calls():
        match await _judge(at, item, call):
            case Ready() as verdict:
                ready.append(verdict)
            case Question() as verdict:
                questions.append(verdict)
            case ToolResult() as result:
                _say_result(at, item, call, Done(result=result))
    if questions:
        _ask(at, questions)
        return
    async with aclosing(_run_in_order(at, ready)) as batches:
        async for batch in batches:
            yield batch


async def _judge(at: Desk, item: Item, call: ToolCall) -> Verdict:
    tool = at.tools.get(call.name)
    is_own = item.task_id == at.talk.task.id
    may_have_run = item.id in at.talk.begun or not is_own
    if may_have_run and (tool is None or not tool.read_only or not is_own):
        outcome = await at.ops.outcome(item.id)
        return outcome or ToolResult(status="interrupted", output=INTERRUPTED)
    if tool is None:
        names = ", ".join(at.tools)
        return _not_run(f"There is no tool {call.name!r}. There are: {names}.")
    try:
        arguments = decode(tool.arguments, call.arguments)
    except ZeneError as error:
        return _not_run(error.message)
    ready = Ready(item, call, tool, arguments)
    if may_have_run or not permissions.needs_approval(at.policy, tool, at.rules):
        return ready
    return _answer_of(at.approvals.get(item.id), ready)


def _answer_of(approval: Approval | None, ready: Ready) -> Verdict:
    call = ready.call
    if approval is None:
        return Question(ready)
    match approval.status:
        case "pending":
            return Question(ready, is_asked=True)
        case "allowed" if approval.arguments_hash == arguments_hash(call.name, call.arguments):
            return ready
        case "denied":
            note = shortened(approval.note, 2000)
            return _not_run(f"{DENIED} They said: {note}" if note else DENIED, "denied")
        case _:
            return _not_run(EXPIRED, "denied")


def _not_run(why: str, status: CallStatus = "failed") -> ToolResult:
    return ToolResult(status=status, output=why)


def _ask(at: Desk, questions: list[Question]) -> None:
    """Ask for all calls of the answer at once; nothing of it runs before."""
    expires = at.ops.now_ms() + at.limits.approval_seconds * 1000
    for question in questions:
        if not question.is_asked:
            at.talk.say(_request(at, question.ready, expires), item_id=question.ready.id)
    at.talk.say(TaskWaiting(on="approval"))


def _request(at: Desk, ready: Ready, expires: int) -> ApprovalRequested:
    return ApprovalRequested(
        approval_id=at.ops.new_id("apr"),
        item_id=ready.id,
        name=ready.call.name,
        arguments=as_json(ready.call.arguments),
        summary=permissions.summary(ready.call, ready.arguments),
        risk=permissions.risk(ready.tool),
        expires_at=rfc3339(expires),
    )


async def _run_in_order(at: Desk, ready: list[Ready]) -> AsyncGenerator[Batch, None]:
    """Run the calls in the order of the answer; neighbours that only read run side by side."""
    for group in _groups(ready):
        if at.is_overdue:
            for one in group:
                _say_result(at, one.item, one.call, Done(result=_not_run(OVERDUE, "interrupted")))
            continue
        intents = [one.id for one in group if one.id not in at.talk.begun]
        if intents or at.talk.has_news:
            yield at.talk.batch(intents)
        by_id = {one.id: one for one in group}
        async with aclosing(_perform(at, group)) as finished:
            async for end in finished:
                one = by_id.pop(end.item_id)
                _say_result(at, one.item, one.call, end.done)
                if by_id:
                    yield at.talk.batch()


def _groups(ready: list[Ready]) -> list[list[Ready]]:
    groups: list[list[Ready]] = []
    for reads, neighbours in groupby(ready, key=lambda one: one.tool.read_only):
        group = list(neighbours)
        groups.extend([group] if reads else [[one] for one in group])
    return groups


async def _perform(at: Desk, group: Sequence[Ready]) -> AsyncGenerator[Finished, None]:
    if len(group) == 1:
        yield Finished(item_id=group[0].id, done=await _run(at, group[0]))
        return
    work = {one.id: partial(_run, at, one) for one in group}
    async with aclosing(at.ops.together(work)) as finished:
        async for end in finished:
            yield end


async def _run(at: Desk, ready: Ready) -> Done:
    """Run one call; its failure is its result. Raises only what ends the run."""
    begun_ms = at.ops.now_ms()
    try:
        done = await ready.tool.run(ready.arguments, at.ops.context(ready.id))
    except (LeaseLost, SandboxUnavailable, SetupError, Unavailable):
        raise
    except SandboxGone as error:
        status: CallStatus = "failed" if ready.tool.read_only else "interrupted"
        done = Done(result=_not_run(f"The sandbox ended: {error.message} {INTERRUPTED}", status))
    except ZeneError as error:
        done = failed(error.message)
    duration = done.result.duration_ms
    if duration is None:
        duration = max(0, at.ops.now_ms() - begun_ms)
    result = replace(done.result, duration_ms=duration)
    return replace(done, result=result)


def _say_result(at: Desk, item: Item, call: ToolCall, done: Done) -> None:
    at.talk.say_result(item.id, at.kind(call.name), call, done)

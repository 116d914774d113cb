"""A step: the model is asked, and its answer becomes history when it is whole.

Nothing of an answer that breaks off becomes history, and no call runs whose arguments may be cut.
"""

import re
from collections.abc import AsyncGenerator, Set
from contextlib import aclosing

from zene.agent.base import Batch
from zene.agent.desk import Desk
from zene.agent.reading import Reading
from zene.domain.errors import ModelError
from zene.domain.events import ErrorBody
from zene.domain.messages import Message, Reasoning, ToolCall
from zene.domain.situation import Granted
from zene.llm.base import Done, StopReason
from zene.tools import base as tools

CALLS_LIMIT = 64
ARGUMENTS_LIMIT = 1 << 20  # characters
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


async def answer(at: Desk, granted: Granted) -> AsyncGenerator[Batch, None]:
    """Ask the model, and say what it answers; what is said last is left to the next batch."""
    reading = Reading(at.talk, at.ops)
    covered = len(at.talk.items)
    cap = granted.max_output_tokens
    try:
        async with aclosing(at.model.stream(at.request(cap))) as outputs:
            async for output in outputs:
                if reading.take(output):
                    yield at.talk.batch()
                    reading.show()
                elif reading.is_waiting:
                    async with aclosing(reading.wait(outputs)) as moments:
                        async for _ in moments:
                            yield at.talk.batch()
                            reading.show()
        done = reading.done
    except ModelError as error:
        reading.discard()
        at.fail_step(error, cap)
        return
    has_calls = _keep(at, reading, done.stop_reason)
    usage = at.end_step(done.stop_reason, done.usage, cap)
    at.talk.counted = (usage.input_tokens, covered)
    if not has_calls:
        _end(at, done, cap)


def _keep(at: Desk, reading: Reading, stop_reason: StopReason) -> bool:
    """Make the answer's parts history; whether it has calls."""
    parts = reading.parts
    taken = {call.call_id for _, call in at.talk.calls()}
    calls = 0
    for part in parts:
        match part.content:
            case ToolCall() as call if stop_reason != "refusal" and calls < CALLS_LIMIT:
                call = _fit_to_send(call, part.item_id, taken)
                taken.add(call.call_id)
                calls += 1
                is_cut = stop_reason == "length" and part is parts[-1]
                _keep_call(at, part.item_id, call, is_cut=is_cut)
            case Message(text=text, block=block) | Reasoning(text=text, block=block) if (
                text or block
            ):
                reading.start(part)
                at.talk.say_text(part.item_id, part.kind, part.content, text)
            case _ if part.is_started:
                reading.discard_part(part)
            case _:
                pass
    return bool(calls)


def _fit_to_send(call: ToolCall, item_id: str, taken: Set[str]) -> ToolCall:
    """The call as providers take it back: an id that no other in the history has, a name they allow."""
    call_id = call.call_id if call.call_id and call.call_id not in taken else item_id
    is_named = _NAME.fullmatch(call.name) is not None
    name = call.name if is_named else re.sub(r"[^A-Za-z0-9_-]", "_", call.name)[:64] or "unnamed"
    if is_named and call_id == call.call_id:
        return call
    return ToolCall(call_id=call_id, name=name, arguments=call.arguments)


def _keep_call(at: Desk, item_id: str, call: ToolCall, *, is_cut: bool) -> None:
    kind = at.kind(call.name)
    is_too_long = len(call.arguments) > ARGUMENTS_LIMIT
    if is_too_long:
        call = ToolCall(call_id=call.call_id, name=call.name, arguments="{}")
    at.talk.say_call(item_id, kind, call)
    if is_too_long:
        text = "Not run: the arguments were longer than 1 MiB. Write large files in parts."
        at.talk.say_result(item_id, kind, call, tools.failed(text))
    elif is_cut:
        text = "Not run: the answer was cut off at its token limit, in this call. Do it in smaller parts."
        at.talk.say_result(item_id, kind, call, tools.failed(text))


def _end(at: Desk, done: Done, cap: int) -> None:
    """An answer without a call ends the task."""
    match done.stop_reason:
        case "refusal":
            at.fail("model_refusal", "The model declined to answer.")
        case "length" if cap < at.model.info.output_cap:
            message = f"The answer was cut off: only {cap} tokens were left for it."
            at.end("budget_exhausted", ErrorBody(code="budget_exhausted", message=message))
        case "length":
            at.fail("model_output_cut", f"The answer was longer than {cap} tokens and was cut off.")
        case "end" | "tool_calls":
            at.end("succeeded")

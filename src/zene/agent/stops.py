"""When a task ends by itself although the model would go on: steps, working time, and going in circles."""

import re
from collections.abc import Iterator
from itertools import groupby, islice

from zene.agent.desk import Desk
from zene.domain.events import ErrorBody
from zene.domain.messages import Item, ToolCall

SAME_STEPS = 5
_WAITS = re.compile(
    r"\b(?:sleep|wait)\b"
)  # a command that says it waits may be made as often as it likes


def check(at: Desk) -> None:
    """End the task where a limit is reached."""
    if at.talk.has_ended:
        return
    if at.is_overdue:
        timed_out(at)
    elif at.talk.step >= at.limits.steps:
        at.fail("step_limit", f"The task took {at.talk.step} steps without an end.")
    elif _goes_in_circles(at):
        at.fail("loop_detected", f"The same call gave the same result {SAME_STEPS} times in a row.")


def timed_out(at: Desk) -> None:
    """The working time is used up."""
    message = "The task's working time is used up. The work done is kept."
    at.end("timed_out", ErrorBody(code="time_limit", message=message))


def _goes_in_circles(at: Desk) -> bool:
    task = at.talk.task.id
    recent = ((item, call) for item, call in _backwards(at) if item.task_id == task)
    steps = groupby(recent, key=lambda pair: pair[0].step)
    last = [[_trace(call) for _, call in pairs] for _, pairs in islice(steps, SAME_STEPS)]
    return (
        len(last) == SAME_STEPS
        and all(step == last[0] for step in last)
        and not any(name == "shell" and _WAITS.search(arguments) for name, arguments, *_ in last[0])
    )


def _backwards(at: Desk) -> Iterator[tuple[Item, ToolCall]]:
    for item in reversed(at.talk.items):
        if isinstance(item.content, ToolCall):
            yield item, item.content


def _trace(call: ToolCall) -> tuple[str, str, str, str]:
    result = call.result
    status, output = ("", "") if result is None else (result.status, result.output)
    return call.name, call.arguments, status, output

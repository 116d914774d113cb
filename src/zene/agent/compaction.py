"""When the window fills, the model sums up what happened, and the summary stands for all of it.

What must not be lost in a summary is not summarised: the system text with the project's rules is said
anew, and the request, what the user said later, the plan and the changed files stand beside the summary as they are. Approvals are
never open here, since every call has its result before the model is asked. The items that were summed up
stay readable through `read_output`.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import accumulate, groupby

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from zene.agent import spending
from zene.agent.base import Batch
from zene.agent.desk import Desk
from zene.domain.errors import ModelError
from zene.domain.events import StepRetry
from zene.domain.messages import (
    Compaction,
    Item,
    Message,
    Reasoning,
    SystemText,
    ToolCall,
    ToolResult,
    UserMessage,
)
from zene.domain.situation import Granted
from zene.llm.base import Done, PartDone, Request, Retrying
from zene.tools.text import shortened

FULL = 0.85  # of what the window holds beside the answer
OUTPUT_LIMIT = 1000  # characters of a call's output in a history that did not fit
PATHS_LIMIT = 8000  # characters of all changed files' paths
SAID_LIMIT = 16_000  # characters of what the user said while the task ran; the latest stands

INSTRUCTION = """\
The conversation no longer fits. Make no call. Sum it up for yourself, who will go on with only this \
summary, the system text, the user's requests, the plan and the list of changed files: what the user wants \
and has decided, what was found out (files, functions and lines by name), what was changed and why, which \
commands and checks were run and what they gave, what failed, and what is to be done next."""

ADDED = len(msgspec.json.encode(UserMessage(INSTRUCTION)))  # bytes of a request for a summary

NO_PLAN = Raw(b"null")


class Restated(Struct, frozen=True, omit_defaults=True):
    """What stands beside a summary, as it is; `more_changed_files` counts those that are not named."""

    request: str
    said_later: tuple[str, ...] = ()
    plan: Raw = NO_PLAN
    changed_files: tuple[str, ...] = ()
    more_changed_files: int = 0


def is_due(at: Desk) -> bool:
    """Whether the history is to be summed up before the model is asked again."""
    if not at.talk.can_be_compacted:
        return False
    info = at.model.info
    room = info.window - min(info.output_cap, info.window // 2)
    return at.must_compact or spending.estimate(at.talk, at.specs) > FULL * room


async def summarise(at: Desk, granted: Granted) -> AsyncGenerator[Batch, None]:
    """Ask the model for the summary and say it: a step like any other, but its text is shown at its end."""
    cap = granted.max_output_tokens
    texts: list[str] = []
    done: Done | None = None
    try:
        async with aclosing(at.model.stream(_request(at, cap))) as outputs:
            async for output in outputs:
                match output:
                    case Retrying(attempt=attempt, delay_ms=delay_ms, reason=reason):
                        at.talk.say(StepRetry(attempt=attempt, delay_ms=delay_ms, reason=reason))
                        yield at.talk.batch()
                    case PartDone(content=Message(text=text)):
                        texts.append(text)
                    case Done():
                        done = output
                    case _:
                        pass
    except ModelError as error:
        at.fail_step(error, cap)
        return
    await _keep(at, "".join(texts).strip(), done, cap)


async def _keep(at: Desk, summary: str, done: Done | None, cap: int) -> None:
    talk = at.talk
    if summary:
        system = talk.system or ""
        content = Compaction(summary=summary, restated=await _restated(at))
        talk.say_item(at.ops.new_id("itm"), "compaction", content, summary)
        talk.say_item(at.ops.new_id("itm"), "notice", SystemText(system), "")
        at.must_compact = False
    if done is None:
        at.end_step("error", None, cap)
    else:
        at.end_step(done.stop_reason, done.usage, cap)
    if not summary:
        message = (
            "The conversation does not fit the model's window, and the model gave no summary of it."
        )
        at.fail("compaction_failed", message)


def _request(at: Desk, cap: int) -> Request:
    whole = at.request(cap)
    items = _fitting(whole.items, at.model.info.window) if at.must_compact else list(whole.items)
    talk = at.talk
    asking = Item(
        id="compaction", task_id=talk.task.id, step=talk.step, content=UserMessage(INSTRUCTION)
    )
    return replace(whole, items=[*items, asking])


def _fitting(items: Sequence[Item], size: int) -> list[Item]:
    """A history that is surely smaller: outputs cut, and the oldest answers left out until it has `size`
    bytes. An answer goes whole, since its calls belong together.
    """
    kept: list[list[Item]] = []
    room = size
    answers = groupby(map(_cut, reversed(items)), key=lambda item: (item.task_id, item.step))
    for _, answer in answers:
        group = list(answer)
        room -= len(msgspec.json.encode(group))
        kept.append(group if room > 0 else [item for item in group if not _is_answer(item)])
    return [item for group in reversed(kept) for item in reversed(group)]


def _cut(item: Item) -> Item:
    call = item.content
    if not isinstance(call, ToolCall) or call.result is None:
        return item
    result = ToolResult(
        status=call.result.status, output=shortened(call.result.output, OUTPUT_LIMIT)
    )
    return replace(item, content=replace(call, result=result))


def _is_answer(item: Item) -> bool:
    return isinstance(item.content, Message | Reasoning | ToolCall)


async def _restated(at: Desk) -> str:
    """What stands beside the summary, and before it what stood beside the last one. Whatever changed a file,
    a command for one, the workspace tells it; what the calls tell stands in where it cannot.
    """
    talk = at.talk
    before = next((it.content for it in talk.items if isinstance(it.content, Compaction)), None)
    last = msgspec.json.decode(before.restated, type=Restated) if before else Restated(request="")
    plan, written = last.plan, dict.fromkeys(last.changed_files)
    for _, call in talk.calls():
        if call.result is None or call.result.status != "succeeded":
            continue
        if call.name == "plan":
            plan = Raw(call.arguments.encode())
        elif call.name in ("write_file", "edit_file"):
            written[msgspec.json.decode(call.arguments)["path"]] = None
    paths, more = await at.ops.changed_files() or (list(written), last.more_changed_files)
    named = _fitting_paths(paths)
    restated = Restated(
        request=talk.task.prompt,
        said_later=_said_later(at, last if before and last.request == talk.task.prompt else None),
        plan=plan,
        changed_files=named,
        more_changed_files=more + len(paths) - len(named),
    )
    return msgspec.json.encode(restated).decode()


def _said_later(at: Desk, last: Restated | None) -> tuple[str, ...]:
    """What the user said while the task ran, as far as it fits."""
    task = at.talk.task
    mine = (it.content for it in at.talk.items if it.task_id == task.id)
    texts = [content.text for content in mine if isinstance(content, UserMessage)]
    said = [*(last.said_later if last else ()), *(text for text in texts if text != task.prompt)]
    lengths = accumulate(map(len, reversed(said)))
    count = sum(length <= SAID_LIMIT for length in lengths)
    return tuple(said[len(said) - count :])


def _fitting_paths(paths: Sequence[str]) -> tuple[str, ...]:
    lengths = accumulate(map(len, paths))
    return tuple(path for path, length in zip(paths, lengths, strict=True) if length <= PATHS_LIMIT)

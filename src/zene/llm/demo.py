"""A scripted conversation, so that the first run needs no key: it does something small, really.

It looks around, writes a program, runs it and says what came out. Like any provider it keeps nothing: its next
step follows from the calls made since the last prompt.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from msgspec import Struct

from zene.domain.errors import ModelError
from zene.domain.messages import Content, Item, Message, Reasoning, ToolCall, Usage, UserMessage
from zene.llm.base import CallStarted, Delta, Done, ModelInfo, Output, PartDone, Request
from zene.llm.http import DEFAULT_LIMITS, Endpoint, Limits

WIRE = "demo"
_DELTA = 6  # characters
_NEEDED = frozenset({"list_files", "write_file", "shell"})


class _Step(Struct, frozen=True):
    """What the demo says and, unless it is done, does."""

    thought: str
    text: str
    tool: str = ""
    arguments: dict[str, Any] = {}


def open_provider(
    info: ModelInfo, endpoint: Endpoint | None = None, limits: Limits = DEFAULT_LIMITS
) -> "DemoProvider":
    """The demo needs neither an address nor a key."""
    del endpoint, limits
    return DemoProvider(info)


class DemoProvider:
    """The scripted conversation; see `base.Provider`."""

    wire = WIRE

    def __init__(self, info: ModelInfo) -> None:
        self._info = info

    @property
    def info(self) -> ModelInfo:
        """As it was given: the demo has no window and costs nothing."""
        return self._info

    async def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        """Answer with the script's next step, in small deltas."""
        parts = _parts(_next(request), call_id=f"demo_{request.items[-1].id}")
        made = 0
        for index, part in enumerate(parts):
            for output in _outputs(index, part):
                made += isinstance(output, Delta)
                yield output
                await asyncio.sleep(0)  # a real model lets others run between two tokens
        given = sum(len(repr(item.content)) for item in request.items) // 4
        is_call = isinstance(parts[-1], ToolCall)
        usage = Usage(input_tokens=given, output_tokens=made)
        yield Done(stop_reason="tool_calls" if is_call else "end", usage=usage)

    async def close(self) -> None:
        """Nothing is held."""


def _next(request: Request) -> _Step:
    prompt, calls = _since_prompt(request.items)
    if not _NEEDED.issubset(tool.name for tool in request.tools):
        return _Step("", "I am Zene's demo model. Without tools I can only say hello: hello!")
    if calls and (calls[-1].result is None or calls[-1].result.status != "succeeded"):
        return _stopped(calls[-1])
    if len(calls) < len(_SCRIPT):
        step = _SCRIPT[len(calls)]
        return _wrote(prompt) if step.tool == "write_file" else step
    return _finished(calls[-1])


def _since_prompt(items: Sequence[Item]) -> tuple[str, list[ToolCall]]:
    """The last prompt and the calls made since."""
    calls: list[ToolCall] = []
    for item in reversed(items):
        match item.content:
            case UserMessage(text):
                return text, calls[::-1]
            case ToolCall() as call:
                calls.append(call)
            case _:
                pass
    raise ModelError("There is no prompt to answer.", code="model_rejected")


_SCRIPT = (
    _Step(
        "No model is set, so I follow my script: look around, write a program, run it.",
        "I am Zene's demo model: I follow a script, but what I do in your workspace is real. "
        "First I look at what is there.",
        "list_files",
        {"path": "."},
    ),
    _Step("", "", "write_file"),
    _Step("", "Now I run it.", "shell", {"command": "python3 hello.py", "timeout_seconds": 30}),
)


def _wrote(prompt: str) -> _Step:
    asked = ascii(prompt.strip().partition("\n")[0][:200])
    program = f'asked = {asked}\nprint("Hello from Zene! You asked:", asked)\n'
    return _Step(
        "",
        "Next I write a small program.",
        "write_file",
        {"path": "hello.py", "content": program},
    )


def _finished(call: ToolCall) -> _Step:
    said = call.result.output.strip() if call.result else ""
    return _Step(
        "The program ran; I am done.",
        f"Done. `hello.py` is in your workspace, and it said:\n\n    {said[:500]}\n\n"
        "To work with a real model, set ZENE_MODEL and its key, and start Zene again.",
    )


def _stopped(call: ToolCall) -> _Step:
    status = call.result.status if call.result else "open"
    return _Step("", f"My call of `{call.name}` was {status}, so my script ends here.")


def _parts(step: _Step, *, call_id: str) -> list[Content]:
    parts: list[Content] = []
    if step.thought:
        parts.append(Reasoning(step.thought))
    parts.append(Message(step.text))
    if step.tool:
        parts.append(ToolCall(call_id, step.tool, json.dumps(step.arguments)))
    return parts


def _outputs(index: int, part: Content) -> Iterator[Output]:
    match part:
        case Message(text):
            yield from (Delta(index, "message", piece) for piece in _pieces(text))
        case Reasoning(text):
            yield from (Delta(index, "reasoning", piece) for piece in _pieces(text))
        case ToolCall(call_id, name, arguments):
            yield CallStarted(index, call_id, name)
            yield from (Delta(index, "arguments", piece) for piece in _pieces(arguments))
        case _:
            pass
    yield PartDone(index, part)


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + _DELTA] for at in range(0, len(text), _DELTA))

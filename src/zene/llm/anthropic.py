"""Anthropic's Messages: the request.

Thinking comes only when asked for, and how to ask depends on the model; within a tool-use turn the thinking
blocks go back verbatim with their signatures. Cache breakpoints mark the tools, the system text and the
last two turns, which is all that the format allows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import DecodeError, Raw
from msgspec.json import Decoder, Encoder

from zene.domain.messages import Message, Reasoning, ToolCall
from zene.llm.anthropic_answer import NAME, MessagesAnswer
from zene.llm.base import Effort, ModelInfo, Request, ToolSpec
from zene.llm.http import DEFAULT_LIMITS, Client, Endpoint, Limits
from zene.llm.refusals import Refusal
from zene.llm.turns import Answered, Ruled, Said, Turn, result_of, sendable_id, turns
from zene.llm.wire import Bounds, HttpProvider

_encode = Encoder().encode
_decode_object = Decoder(dict[str, Raw]).decode
_BREAKPOINT = {"type": "ephemeral"}
_TURNS_CACHED = 2
_LONGEST_ID = 64
_SMALLEST_BUDGET = 1024  # of thinking tokens; less is refused
_BUDGETS: dict[Effort, int] = {"low": 2048, "medium": 8192, "high": 24_576}

# How a model is asked to think, by the beginning of its name; the first that fits counts. Older models take a
# budget; later ones, and names that came after this table, decide for themselves and refuse a budget.
_THINKING: Sequence[tuple[str, Literal["none", "budget", "adaptive"]]] = (
    ("claude-3-7-", "budget"),
    ("claude-3-", "none"),
    ("claude-opus-4-6", "adaptive"),
    ("claude-opus-4-7", "adaptive"),
    ("claude-opus-4-8", "adaptive"),
    ("claude-sonnet-4-6", "adaptive"),
    ("claude-opus-4", "budget"),
    ("claude-sonnet-4", "budget"),
    ("claude-haiku-4", "budget"),
    ("claude-", "adaptive"),
    ("", "none"),  # other makers' models behind a compatible server
)


def open_provider(
    info: ModelInfo, endpoint: Endpoint, limits: Limits = DEFAULT_LIMITS
) -> HttpProvider:
    """The model at any server that speaks Messages."""
    return HttpProvider(Messages(), info, endpoint, Client(endpoint.base_url, limits))


class Messages:
    """The wire format."""

    name = NAME
    path = "/v1/messages"

    def headers(self, api_key: str) -> Mapping[str, str]:
        """The version is that of the format, not of a model."""
        return {"x-api-key": api_key, "anthropic-version": "2023-06-01"}

    def body(self, request: Request) -> bytes:
        """The request; what is the same for a whole session comes first."""
        history = list(turns(request.items))
        system = [_text(turn.text) for turn in history if isinstance(turn, Ruled)]
        return _encode(
            {
                "model": request.model,
                "max_tokens": request.max_output_tokens,
                "stream": True,
                **_thinking(request),
                **({"tools": _marked(_tools(request.tools))} if request.tools else {}),
                **({"system": _marked(system)} if system else {}),
                "messages": _messages(history),
            }
        )

    def answer(self, request: Request) -> MessagesAnswer:
        """What reads the answer."""
        return MessagesAnswer(Bounds(request.max_output_tokens))

    def hint(self, refusal: Refusal, request: Request) -> str:
        """A model that this file does not know may refuse the way it is asked to think."""
        if "thinking" in refusal.words and request.effort != "none":
            return f"if {request.model} cannot think, set the effort to none"
        return ""


def _thinking(request: Request) -> dict[str, Any]:
    """How this model is asked to think; not at all with effort `none`, or without room for a budget."""
    style = next(style for name, style in _THINKING if request.model.startswith(name))
    if request.effort == "none" or style == "none":
        return {}
    if style == "adaptive":
        thinking: dict[str, Any] = {"thinking": {"type": "adaptive", "display": "summarized"}}
        if request.effort is not None:
            thinking["output_config"] = {"effort": request.effort}
        return thinking
    budget = min(_BUDGETS[request.effort or "medium"], request.max_output_tokens // 2)
    if budget < _SMALLEST_BUDGET:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    return [
        {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
        for tool in tools
    ]


def _messages(history: Sequence[Turn]) -> list[dict[str, Any]]:
    """Roles alternate: a call's result and what the user says next are one message."""
    messages: list[dict[str, Any]] = []
    for turn in history:
        match turn:
            case Said(text):
                _append(messages, "user", [_text(text)])
            case Answered():
                _append(messages, "assistant", _answered(turn))
                _append(messages, "user", [_result(call) for call in turn.calls])
            case Ruled():
                pass
    told = [message for message in messages if message["role"] == "user"]
    for message in told[-_TURNS_CACHED:]:
        _marked(message["content"])
    return messages


def _append(messages: list[dict[str, Any]], role: str, blocks: list[Any]) -> None:
    if not blocks:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def _marked(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set a cache breakpoint behind the last block."""
    blocks[-1]["cache_control"] = _BREAKPOINT
    return blocks


def _text(text: str) -> dict[str, Any]:
    """The format refuses a text of nothing but white space."""
    return {"type": "text", "text": text if text.strip() else "(empty)"}


def _answered(turn: Answered) -> list[Any]:
    blocks: list[Any] = []
    for part in turn.parts:
        match part:
            case Message(text) if text.strip():
                blocks.append(_text(text))
            case Reasoning(_, block) if block is not None and block.wire == NAME:
                blocks.append(block.data)
            case ToolCall():
                blocks.append(_call(part))
            case _:
                pass
    return blocks


def _call(call: ToolCall) -> dict[str, Any]:
    named = {"type": "tool_use", "id": _call_id(call), "name": call.name}
    return {**named, "input": _input(call.arguments)}


def _input(arguments: str) -> Any:
    """The arguments verbatim; the format has no place for what is not a JSON object, so it is put in one."""
    try:
        _decode_object(arguments)
    except (DecodeError, RecursionError):
        return {"not_json": arguments}
    return Raw(arguments)


def _result(call: ToolCall) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": _call_id(call),
        "content": result_of(call),
    }
    if call.result is None or call.result.status != "succeeded":
        result["is_error"] = True
    return result


def _call_id(call: ToolCall) -> str:
    return sendable_id(call.call_id, longest=_LONGEST_ID)

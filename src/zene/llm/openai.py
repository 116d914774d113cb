"""Models of OpenAI and of every compatible server, and OpenAI's chat completions: the request.

OpenAI's own models are reached by Responses, all others by chat completions, which every server speaks.
What only OpenAI's own servers know (`max_completion_tokens`, `prompt_cache_key`) goes to no other, since
some refuse a field they do not know.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec.json import Decoder, Encoder

from zene.domain.messages import Item, Message, Reasoning, ToolCall
from zene.llm.base import ModelInfo, Request, ToolSpec
from zene.llm.http import DEFAULT_LIMITS, Client, Endpoint, Limits
from zene.llm.openai_answer import NAME, ChatAnswer
from zene.llm.refusals import Refusal
from zene.llm.responses import Responses
from zene.llm.turns import Answered, Ruled, Said, result_of, sendable_id, turns
from zene.llm.wire import Bounds, HttpProvider

_LONGEST_ID = 40  # at OpenAI
_encode = Encoder().encode
_decode_field = Decoder(str).decode


def open_provider(
    info: ModelInfo, endpoint: Endpoint, limits: Limits = DEFAULT_LIMITS
) -> HttpProvider:
    """The model at any server that speaks one of OpenAI's interfaces, `responses` or `chat`."""
    host = urlsplit(endpoint.base_url).hostname or ""
    is_openai = host == "api.openai.com" or host.endswith(".api.openai.com")
    api = endpoint.api or ("responses" if is_openai else "chat")
    has_its_names = is_openai or host.endswith(".openai.azure.com")
    wire = Responses() if api == "responses" else ChatCompletions(is_openai=has_its_names)
    return HttpProvider(wire, info, endpoint, Client(endpoint.base_url, limits))


class ChatCompletions:
    """The wire format. `is_openai` says that the server is OpenAI's own, which has names of its own."""

    name = NAME
    path = "/chat/completions"

    def __init__(self, *, is_openai: bool) -> None:
        self._is_openai = is_openai

    def headers(self, api_key: str) -> Mapping[str, str]:
        """A server on one's own machine may need no key."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def body(self, request: Request) -> bytes:
        """The request; what is the same for a whole session comes first."""
        return _encode(
            {
                "model": request.model,
                "stream": True,
                "stream_options": {"include_usage": True},
                **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}),
                **({"reasoning_effort": request.effort} if request.effort else {}),
                **self._named_by_openai(request),
                "messages": _messages(request.items, is_openai=self._is_openai),
            }
        )

    def answer(self, request: Request) -> ChatAnswer:
        """What reads the answer."""
        return ChatAnswer(Bounds(request.max_output_tokens))

    def hint(self, refusal: Refusal, request: Request) -> str:
        """OpenAI's reasoning models take tools on this interface only without reasoning."""
        if "reasoning_effort" in refusal.words and request.tools and request.effort != "none":
            return (
                f"{request.model} takes tools through chat completions only without reasoning: "
                "reach it by Responses (api = 'responses'), or set the effort to none"
            )
        return ""

    def _named_by_openai(self, request: Request) -> dict[str, Any]:
        if not self._is_openai:
            return {"max_tokens": request.max_output_tokens}
        named: dict[str, Any] = {"max_completion_tokens": request.max_output_tokens}
        if request.cache_key:
            named["prompt_cache_key"] = request.cache_key
        return named


def _tool(tool: ToolSpec) -> dict[str, Any]:
    spoken = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": spoken}


def _messages(items: Sequence[Item], *, is_openai: bool) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in turns(items):
        match turn:
            case Ruled(text):
                messages.append({"role": "system", "content": text})
            case Said(text):
                messages.append({"role": "user", "content": text})
            case Answered():
                messages.append(_assistant(turn, is_openai=is_openai))
                messages += [_result(call, is_openai=is_openai) for call in turn.calls]
    return messages


def _assistant(turn: Answered, *, is_openai: bool) -> dict[str, Any]:
    """The reasoning goes back under the name it came with: some servers refuse tool results without it.

    OpenAI's own tell none on this interface, and know no such name.
    """
    text = "".join(part.text for part in turn.parts if isinstance(part, Message))
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    for part in () if is_openai else turn.parts:
        if isinstance(part, Reasoning) and part.block is not None and part.block.wire == NAME:
            field = _decode_field(part.block.data)
            message[field] = message.get(field, "") + part.text
    if turn.calls:
        message["tool_calls"] = [_call(call, is_openai=is_openai) for call in turn.calls]
    elif not text:
        message["content"] = ""
    return message


def _call(call: ToolCall, *, is_openai: bool) -> dict[str, Any]:
    spoken = {"name": call.name, "arguments": call.arguments}
    return {"id": _call_id(call, is_openai=is_openai), "type": "function", "function": spoken}


def _result(call: ToolCall, *, is_openai: bool) -> dict[str, Any]:
    call_id = _call_id(call, is_openai=is_openai)
    return {"role": "tool", "tool_call_id": call_id, "content": result_of(call)}


def _call_id(call: ToolCall, *, is_openai: bool) -> str:
    """Other servers get their ids back as they are: some keep in them what they must know again."""
    return sendable_id(call.call_id, longest=_LONGEST_ID) if is_openai else call.call_id

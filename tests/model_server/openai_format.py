"""Chat completions as OpenAI's servers speak and refuse them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.model_server.formats import Place, Refused, pieces, require, text_of, to_json, tokens_of
from tests.model_server.scripts import Answer, Script

_ONLY_RESPONSES = re.compile(r"gpt-5\.([4-9]|\d\d)|gpt-[6-9]")


def key_of(headers: Mapping[str, str]) -> str:
    """The key that the request carries."""
    return headers.get("authorization", "").removeprefix("Bearer ")


def error_body(refused: Refused) -> bytes:
    """A refusal as the provider words it."""
    error = {"message": refused.message, "type": "invalid_request_error", "code": refused.kind}
    return json.dumps({"error": error}).encode()


def place(request: Any, *, takes_steering: bool) -> Place:
    """The last prompt, and the assistant's turns since."""
    messages = request["messages"]
    step = 0
    for at in range(len(messages) - 1, -1, -1):
        role = messages[at]["role"]
        is_steering = takes_steering and at > 0 and messages[at - 1]["role"] == "tool"
        if role == "user" and not is_steering:
            return Place(text_of(messages[at]["content"]), step)
        step += role == "assistant"
    return Place("", step)


def check(request: Any, headers: Mapping[str, str], script: Script) -> None:
    """Refuse what the provider refuses. Raises Refused."""
    del headers, script
    require(request.get("stream"), "this server only streams")
    _check_model(request)
    require(request["messages"], "'messages' must not be empty")
    _check_tools(request.get("tools"))
    open_calls: set[str] = set()
    for message in request["messages"]:
        if message["role"] == "tool":
            require(
                message.get("tool_call_id") in open_calls,
                "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
            )
            open_calls.discard(message["tool_call_id"])
            continue
        require(not open_calls, f"tool_call_ids did not have response messages: {open_calls}")
        open_calls = _check_message(message)
    require(not open_calls, f"tool_call_ids did not have response messages: {open_calls}")
    if "max_completion_tokens" in request:
        _check_for_openai(request["messages"])


def _check_for_openai(messages: Any) -> None:
    """What only OpenAI's own servers refuse; a request for them is known by its words."""
    for message in messages:
        strange = set(message) - {
            "role",
            "content",
            "tool_calls",
            "tool_call_id",
            "name",
            "refusal",
        }
        require(not strange, f"Unrecognized request argument supplied: {strange}")
        for call in message.get("tool_calls", ()):
            require(
                len(call["id"]) <= 40,
                "Invalid 'messages[].tool_calls[].id': string too long. Expected a string with "
                "maximum length 40.",
            )


def _check_model(request: Any) -> None:
    limit = request.get("max_completion_tokens", request.get("max_tokens", 1))
    require(isinstance(limit, int) and limit > 0, "max_tokens must be at least 1")
    if not _ONLY_RESPONSES.match(request["model"]):
        return
    require("max_tokens" not in request, "Use 'max_completion_tokens' instead of 'max_tokens'.")
    require(
        not request.get("tools") or request.get("reasoning_effort") == "none",
        f"Function tools with reasoning_effort are not supported for {request['model']} in "
        "/v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort "
        "to 'none'.",
    )


def _check_tools(tools: Any) -> None:
    require(tools is None or tools, "'tools' must not be empty")
    for tool in tools or ():
        spoken = tool["function"]
        require(tool["type"] == "function", "unknown kind of tool")
        require(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", spoken["name"]), "bad name of a function")
        require(spoken["parameters"]["type"] == "object", "a function's parameters are an object")


def _check_message(message: Any) -> set[str]:
    """The calls that now wait for their results."""
    calls = message.get("tool_calls")
    if message["role"] != "assistant":
        require(isinstance(message.get("content"), str), "content must be a string")
        return set()
    require(calls is None or calls, "'tool_calls' must not be empty")
    require(calls or message.get("content") is not None, "an assistant message needs a content")
    for call in calls or ():
        require(isinstance(call["function"]["arguments"], str), "arguments must be a string")
    return {call["id"] for call in calls or ()}


def usage_of(body: bytes, answer: Answer, step: int) -> dict[str, Any]:
    """The usage of a call: a token for four bytes of the request, half of them cached from step 1 on."""
    given, made = max(len(body) // 4, 1), tokens_of(answer)
    thought = len(list(pieces(answer.reasoning, answer.delta_size)))
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": given // 2 if step else 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def events(request: Any, answer: Answer, name: str, usage: dict[str, Any]) -> Iterator[bytes]:
    """The events of an answer; `name` is unique to it."""
    frame = _Frame(f"chatcmpl-{name}", request["model"])
    yield frame.delta({"role": "assistant", "content": ""})
    for text in pieces(answer.reasoning, answer.delta_size):
        yield frame.text("reasoning_content", text)
    for text in pieces(answer.said, answer.delta_size):
        yield frame.text("content", text)
    for index, call in enumerate(answer.calls):
        named = {"name": call.name, "arguments": ""}
        call_id = call.id or f"call_{name}_{index}"
        begun = {"index": index, "id": call_id, "type": "function", "function": named}
        yield frame.delta({"tool_calls": [begun]})
        for text in pieces(to_json(call.arguments), answer.delta_size):
            yield frame.delta({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
    ends = {"end": "stop", "length": "length", "refusal": "content_filter"}
    end = ends[answer.stop]
    yield frame.delta({}, "tool_calls" if answer.calls and end == "stop" else end)
    if answer.has_usage and request.get("stream_options", {}).get("include_usage"):
        yield frame.usage(usage)
    yield b"data: [DONE]\n\n"


class _Frame:
    """Chunks that share their envelope."""

    def __init__(self, answer_id: str, model: str) -> None:
        envelope = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": model,
        }
        self._head = f"data: {json.dumps(envelope)[:-1]}, "

    def delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return f'{self._head}"choices": [{to_json(choice)}]}}\n\n'.encode()

    def text(self, field: str, text: str) -> bytes:
        """The same, faster."""
        delta = f'{{"index": 0, "delta": {{"{field}": {to_json(text)}}}, "finish_reason": null}}'
        return f'{self._head}"choices": [{delta}]}}\n\n'.encode()

    def usage(self, usage: dict[str, Any]) -> bytes:
        return f'{self._head}"choices": [], "usage": {json.dumps(usage)}}}\n\n'.encode()

"""What OpenAI's servers refuse on Responses.

The server stores nothing, so it can tell from the ids of the items alone what belongs together: the item after
the reasoning `rs_X` is called `…_X_t`. Reasoning is sealed by a hash of its id and its summary.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tests.model_server.formats import Refused, require
from tests.model_server.scripts import Script

_FIELDS = {
    *("background", "conversation", "include", "input", "instructions", "max_output_tokens"),
    *("max_tool_calls", "metadata", "model", "parallel_tool_calls", "previous_response_id"),
    *("prompt", "prompt_cache_key", "prompt_cache_retention", "reasoning", "safety_identifier"),
    *("service_tier", "store", "stream", "stream_options", "temperature", "text", "tool_choice"),
    *("tools", "top_logprobs", "top_p", "truncation", "user"),
}
_ITEM_FIELDS = {
    "message": {"type", "id", "role", "content", "status", "phase"},
    "reasoning": {"type", "id", "summary", "content", "encrypted_content", "status"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status"},
    "function_call_output": {"type", "id", "call_id", "output", "status"},
}
_PREFIXES = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}
# The efforts of reasoning models, by the beginning of their names.
_REASONING = (
    (re.compile(r"gpt-5-chat|gpt-[34]|chatgpt-"), ()),
    (re.compile(r"gpt-5-pro"), ("high",)),
    (re.compile(r"gpt-5-codex|o\d"), ("low", "medium", "high")),
    (re.compile(r"gpt-5(-|$)"), ("minimal", "low", "medium", "high")),
    (re.compile(r"gpt-[5-9]"), ("none", "low", "medium", "high", "xhigh")),
    (re.compile(r""), ("none", "minimal", "low", "medium", "high")),
)


def thinks(request: Any) -> bool:
    """Whether the model was asked to reason."""
    effort: str = (request.get("reasoning") or {}).get("effort", "none")
    return effort != "none"


def seal_of(item_id: str, text: str) -> str:
    """Sealed reasoning that only this server makes, and that it can check."""
    return "sealed-" + hashlib.sha256(f"{item_id} {text}".encode()).hexdigest()


def check(request: Any, headers: Mapping[str, str], script: Script) -> None:
    """Refuse what the provider refuses. Raises Refused."""
    del headers, script
    for name in request:
        require(name in _FIELDS, f"Unknown parameter: '{name}'.", "unknown_parameter")
    require(request.get("stream"), "this server only streams")
    require(request.get("store") is False, "this server stores nothing")
    limit = request.get("max_output_tokens", 16)
    require(isinstance(limit, int) and limit >= 16, "'max_output_tokens' must be at least 16")
    key = request.get("prompt_cache_key", "")
    require(isinstance(key, str) and len(key) <= 64, "Invalid 'prompt_cache_key': string too long.")
    _check_reasoning(request)
    _check_tools(request.get("tools", []))
    require(request["input"], "'input' must not be empty")
    for item in request["input"]:
        _check_item(item)
    _check_belonging(request["input"])
    _check_calls(request["input"])


def _check_reasoning(request: Any) -> None:
    model = request["model"]
    taken = next(taken for name, taken in _REASONING if name.match(model))
    reasoning = request.get("reasoning")
    if reasoning is not None:
        require(taken, f"Unsupported parameter: 'reasoning.effort' is not supported with {model}.")
        require(not set(reasoning) - {"effort", "summary"}, "Unknown parameter in 'reasoning'.")
        effort = reasoning.get("effort", taken[-1] if taken else None)
        require(
            effort in taken,
            f"Unsupported value: '{effort}' is not supported with the '{model}' model. Supported "
            f"values of reasoning.effort are: {taken}.",
        )
        require(reasoning.get("summary") in (None, "auto", "detailed"), "bad 'reasoning.summary'")
    include = request.get("include", [])
    require(set(include) <= {"reasoning.encrypted_content"}, "Invalid value in 'include'")
    require(taken or not include, "Encrypted content is not supported with this model.")


def _check_tools(tools: Any) -> None:
    for tool in tools:
        require(
            set(tool) <= {"type", "name", "description", "parameters", "strict"},
            f"Unknown parameter in 'tools': {sorted(tool)}",
        )
        require(tool["type"] == "function", "unknown kind of tool")
        require(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"]), "bad name of a function")
        schema = tool["parameters"]
        require(schema["type"] == "object", "a function's parameters are an object")
        if tool.get("strict", True):
            is_strict = schema.get("additionalProperties") is False
            named = set(schema.get("required", ())) == set(schema["properties"])
            require(is_strict and named, f"Invalid schema for function '{tool['name']}'")


def _check_item(item: Any) -> None:
    kind = item.get("type", "message")
    if kind == "item_reference":
        raise _not_stored(item["id"])
    require(kind in _ITEM_FIELDS, f"Invalid value: '{kind}' in 'input'.")
    strange = set(item) - _ITEM_FIELDS.get(kind, set())
    require(not strange, f"Unknown parameter in 'input': {strange}", "unknown_parameter")
    item_id = item.get("id")
    if item_id is not None and kind in _PREFIXES:
        prefix = _PREFIXES[kind]
        require(item_id.startswith(prefix), f"Expected an ID that begins with '{prefix}'.")
        require(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", item_id), "Invalid 'input[].id'")
    match kind:
        case "message":
            _check_message(item)
        case "reasoning":
            _check_sealed(item)
        case _:
            _check_call(item)


def _check_message(item: Any) -> None:
    require(item["role"] in ("user", "assistant", "system", "developer"), "bad role")
    content = item["content"]
    if isinstance(content, str):
        return
    is_answer = item["role"] == "assistant"
    for part in content:
        kinds = ("output_text", "refusal") if is_answer else ("input_text",)
        require(part["type"] in kinds, f"Invalid value: '{part['type']}' for role {item['role']}.")


def _check_sealed(item: Any) -> None:
    """By its id alone the server would have to have stored it."""
    sealed = item.get("encrypted_content")
    if not sealed:
        raise _not_stored(item["id"])
    text = "".join(part["text"] for part in item["summary"])
    require(
        sealed == seal_of(item["id"], text),
        f"The encrypted content for item {item['id']} could not be verified.",
        "invalid_encrypted_content",
    )


def _not_stored(item_id: str) -> Refused:
    words = (
        f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to "
        "false. Try again with `store` set to true, or remove this item from your input."
    )
    return Refused(404, "item_not_found", words)


def _check_call(item: Any) -> None:
    call_id = item["call_id"]
    require(
        isinstance(call_id, str) and 0 < len(call_id) <= 64,
        "Invalid 'input[].call_id': string too long. Expected a string with maximum length 64.",
        "string_above_max_length",
    )
    text = item["arguments"] if item["type"] == "function_call" else item["output"]
    require(isinstance(text, str), f"a string belongs here: {json.dumps(item)[:200]}")
    if "name" in item:
        require(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", item["name"]), "bad name of a function")


def _check_belonging(items: Any) -> None:
    """Reasoning stands right before the item that it led to, and that item right after it."""
    ids = [item["id"] for item in items if item.get("id")]
    require(len(ids) == len(set(ids)), f"Duplicate item found with id in {ids}.")
    for item, after in pairwise([{}, *items, {}]):
        if item.get("type") == "reasoning":
            wanted = f"{item['id'].removeprefix('rs_')}_t"
            require(
                after.get("id", "").partition("_")[2] == wanted,
                f"Item '{item['id']}' of type 'reasoning' was provided without its required "
                "following item.",
            )
        _, _, name = after.get("id", "").partition("_")
        if name.endswith("_t"):
            require(
                item.get("id") == f"rs_{name.removesuffix('_t')}",
                f"Item '{after.get('id')}' of type '{after.get('type')}' was provided without its "
                f"required 'reasoning' item: 'rs_{name.removesuffix('_t')}'.",
            )


def _check_calls(items: Any) -> None:
    """Every call has its output somewhere after it, and every output its call before it."""
    open_calls: set[str] = set()
    for item in items:
        match item.get("type"):
            case "function_call":
                require(item["call_id"] not in open_calls, "two open calls with one call_id")
                open_calls.add(item["call_id"])
            case "function_call_output":
                call_id = item["call_id"]
                require(
                    call_id in open_calls,
                    f"No tool call found for function call output with call_id {call_id}.",
                )
                open_calls.discard(call_id)
            case _:
                pass
    require(not open_calls, f"No tool output found for function call {sorted(open_calls)}.")

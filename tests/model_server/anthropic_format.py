"""Messages as Anthropic's servers speak and refuse them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.model_server.formats import Place, Refused, pieces, require, text_of, to_json, tokens_of
from tests.model_server.scripts import Answer, Call, Script

_BREAKPOINTS = 4
_BUDGET_ONLY = re.compile(r"claude-(3-7-|(opus|sonnet|haiku)-4(-[015])?(-20|$))")
_ADAPTIVE_ONLY = re.compile(r"claude-(opus-4-[78]|(opus|sonnet|haiku|fable|mythos)-[5-9])")


def key_of(headers: Mapping[str, str]) -> str:
    """The key that the request carries, as the documentation or as the official client sends it."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


def error_body(refused: Refused) -> bytes:
    """A refusal as the provider words it."""
    error = {"type": refused.kind, "message": refused.message}
    return json.dumps({"type": "error", "error": error}).encode()


def place(request: Any, *, takes_steering: bool) -> Place:
    """The last prompt, and the assistant's turns since."""
    step = 0
    for message in reversed(request["messages"]):
        if message["role"] == "assistant":
            step += 1
            continue
        text = text_of(message["content"])
        has_results = any(block["type"] == "tool_result" for block in _blocks(message))
        if text and not (has_results and takes_steering):
            return Place(text, step)
    return Place("", step)


def signature_of(thinking: str) -> str:
    """A signature that only this server makes, and that it can check."""
    return "sig-" + hashlib.sha256(thinking.encode()).hexdigest()


def check(request: Any, headers: Mapping[str, str], script: Script) -> None:
    """Refuse what the provider refuses. Raises Refused."""
    require(headers.get("anthropic-version"), "anthropic-version: header is required")
    require(isinstance(request.get("max_tokens"), int), "max_tokens: Field required")
    require(request["max_tokens"] > 0, "max_tokens: must be greater than 0")
    require(request.get("stream"), "this server only streams")
    _check_breakpoints(request)
    _check_thinking_asked(request)
    messages = request["messages"]
    require(messages and messages[0]["role"] == "user", "messages: the first must be a user's")
    require(messages[-1]["role"] == "user", "This model does not support assistant prefill")
    blocks = [block for message in messages for block in _blocks(message)]
    ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
    require(len(ids) == len(set(ids)), "messages: `tool_use` ids must be unique")
    for at, message in enumerate(messages):
        _check_blocks(message)
        _check_results(message, messages[at - 1] if at else None)
    _check_thinking_returned(request, script)


def _blocks(message: Any) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _check_breakpoints(request: Any) -> None:
    blocks = [block for message in request["messages"] for block in _blocks(message)]
    system = request.get("system") or []
    marked = [
        block
        for block in [
            *blocks,
            *request.get("tools", []),
            *(system if system != str(system) else []),
        ]
        if "cache_control" in block
    ]
    require(
        len(marked) <= _BREAKPOINTS,
        f"A maximum of 4 blocks with cache_control may be provided. Found {len(marked)}.",
    )
    require(
        not any(block.get("type") in ("thinking", "redacted_thinking") for block in marked),
        "cache_control cannot be set on thinking blocks",
    )


def _check_thinking_asked(request: Any) -> None:
    thinking = request.get("thinking") or {"type": "disabled"}
    model = request["model"]
    if thinking["type"] == "adaptive":
        require(not _BUDGET_ONLY.match(model), f"adaptive thinking is not supported on {model}")
    if thinking["type"] == "enabled":
        require(not _ADAPTIVE_ONLY.match(model), f'"thinking.type.enabled" is not for {model}')
        budget = thinking["budget_tokens"]
        require(budget >= 1024, "thinking.enabled.budget_tokens: must be at least 1024")
        require(budget < request["max_tokens"], "`max_tokens` must be greater than the budget")


def _check_blocks(message: Any) -> None:
    require(message["content"], "messages: content must not be empty")
    for block in _blocks(message):
        match block:
            case {"type": "text", "text": text}:
                require(text.strip(), "messages: text content blocks must be non-empty")
            case {"type": "tool_use", "id": call_id, "input": given}:
                require(re.fullmatch(r"[a-zA-Z0-9_-]+", call_id), "tool_use.id: bad characters")
                require(isinstance(given, dict), "tool_use.input: Input should be an object")
            case {"type": "thinking", "thinking": thinking, "signature": signature}:
                require(
                    signature == signature_of(thinking),
                    "Invalid `signature` in `thinking` block",
                )
            case {"type": "redacted_thinking", "data": sealed}:
                require(sealed.startswith("sealed-"), "Invalid `data` in `redacted_thinking` block")
            case {"type": "tool_result", "tool_use_id": str()}:
                pass
            case _:
                require(None, f"messages: a block that does not fit: {json.dumps(block)[:200]}")


def _check_results(message: Any, before: Any) -> None:
    """Every call is answered in the very next message, before any text, and nothing else is."""
    blocks = _blocks(message)
    answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    called = [
        block["id"]
        for block in (_blocks(before) if before and before["role"] == "assistant" else [])
        if block["type"] == "tool_use"
    ]
    missing = set(called) - set(answered)
    require(not missing, f"`tool_use` ids without `tool_result` blocks right after: {missing}")
    strange = set(answered) - set(called)
    require(not strange, f"unexpected `tool_use_id` found in `tool_result` blocks: {strange}")
    require(len(answered) == len(set(answered)), "each tool_use must have a single result")
    kinds = [block["type"] for block in blocks]
    require(
        "tool_result" not in kinds[len(answered) :], "tool_result blocks must come before any text"
    )


def _check_thinking_returned(request: Any, script: Script) -> None:
    """Within a tool-use turn what the model thought before its calls goes back with them."""
    messages = request["messages"]
    prompt, step = place(request, takes_steering=script.takes_steering)
    turns = [message for message in messages if message["role"] == "assistant"]
    for back, message in enumerate(reversed(turns[len(turns) - step :])):
        answer = script.answer(prompt, step - 1 - back)
        kinds = [block["type"] for block in _blocks(message)]
        want = (["redacted_thinking"] if answer.redacted else []) + (
            ["thinking"] if answer.reasoning else []
        )
        if want and answer.calls and _thinks(request):
            require(
                kinds[: len(want)] == want,
                f"messages: Expected {want} as `thinking` or `redacted_thinking`, but found {kinds}",
            )


def _thinks(request: Any) -> bool:
    return (request.get("thinking") or {}).get("type") in ("adaptive", "enabled")


def usage_of(body: bytes, answer: Answer, step: int) -> dict[str, Any]:
    """The usage of a call: a token for four bytes of the request, half of them cached."""
    given = max(len(body) // 4, 1)
    half = given // 2
    return {
        "input_tokens": given - half,
        "cache_creation_input_tokens": 0 if step else half,
        "cache_read_input_tokens": half if step else 0,
        "output_tokens": tokens_of(answer),
    }


def events(request: Any, answer: Answer, name: str, usage: dict[str, Any]) -> Iterator[bytes]:
    """The events of an answer; `name` is unique to it. Thinking comes only when asked for."""
    begun = {**usage, "output_tokens": 1} if answer.has_usage else None
    yield _event("message_start", {"message": _empty_message(name, request["model"], begun)})
    yield _event("ping", {})
    for index, block in enumerate(_answer_blocks(answer, name, thinks=_thinks(request))):
        yield from block.events(index, answer.delta_size)
    ends = {"end": "end_turn", "length": "max_tokens", "refusal": "refusal"}
    end = "tool_use" if answer.calls and answer.stop == "end" else ends[answer.stop]
    counted = {"usage": {"output_tokens": usage["output_tokens"]}} if answer.has_usage else {}
    yield _event("message_delta", {"delta": {"stop_reason": end, "stop_sequence": None}, **counted})
    yield _event("message_stop", {})


def _empty_message(name: str, model: str, usage: Any) -> dict[str, Any]:
    message = {"id": f"msg_{name}", "type": "message", "role": "assistant", "model": model}
    ends = {"stop_reason": None, "stop_sequence": None}
    return {**message, "content": [], **ends, **({"usage": usage} if usage else {})}


class _Block:
    """A content block: how it begins, and its deltas."""

    def __init__(
        self, begin: dict[str, Any], field: str = "", text: str = "", seal: str = ""
    ) -> None:
        self._begin = begin
        self._field = field
        self._text = text
        self._seal = seal

    def events(self, index: int, size: int) -> Iterator[bytes]:
        yield _event("content_block_start", {"index": index, "content_block": self._begin})
        kinds = {"text": "text_delta", "thinking": "thinking_delta"}
        kind = kinds.get(self._field, "input_json_delta")
        for text in pieces(self._text, size):
            delta = f'{{"type": "{kind}", "{self._field}": {to_json(text)}}}'
            yield _block_delta(index, delta)
        if self._seal:
            seal = json.dumps({"type": "signature_delta", "signature": self._seal})
            yield _block_delta(index, seal)
        yield _event("content_block_stop", {"index": index})


def _answer_blocks(answer: Answer, name: str, *, thinks: bool) -> Iterator[_Block]:
    if answer.redacted and thinks:
        yield _Block({"type": "redacted_thinking", "data": f"sealed-{answer.redacted}"})
    if answer.reasoning and thinks:
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        yield _Block(empty, "thinking", answer.reasoning, signature_of(answer.reasoning))
    if answer.said:
        yield _Block({"type": "text", "text": ""}, "text", answer.said)
    for at, call in enumerate(answer.calls):
        yield _Block(
            _call_begins(call, f"toolu_{name}_{at}"), "partial_json", to_json(call.arguments)
        )


def _call_begins(call: Call, made_up_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id or made_up_id, "name": call.name, "input": {}}


def _block_delta(index: int, delta: str) -> bytes:
    data = f'{{"type": "content_block_delta", "index": {index}, "delta": {delta}}}'
    return f"event: content_block_delta\ndata: {data}\n\n".encode()


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {to_json({'type': kind, **data})}\n\n".encode()

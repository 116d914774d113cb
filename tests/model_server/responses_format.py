"""Responses as OpenAI's servers speak and refuse them, to those who store nothing there."""

import json
from collections.abc import Iterator
from typing import Any

from tests.model_server.formats import Place, pieces, text_of, to_json, tokens_of
from tests.model_server.openai_format import error_body, key_of
from tests.model_server.responses_rules import check, seal_of, thinks
from tests.model_server.scripts import Answer

__all__ = ["check", "error_body", "events", "key_of", "place", "usage_of"]


def place(request: Any, *, takes_steering: bool) -> Place:
    """The last prompt, and the assistant's turns since: items in a row are one answer."""
    items = request["input"]
    step = 0
    for at in range(len(items) - 1, -1, -1):
        before = items[at - 1] if at else {}
        is_steering = takes_steering and before.get("type") == "function_call_output"
        if items[at].get("role") == "user" and not is_steering:
            return Place(text_of(items[at]["content"]), step)
        step += _is_answer(items[at]) and not _is_answer(before)
    return Place("", step)


def _is_answer(item: Any) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("reasoning", "function_call")


def usage_of(body: bytes, answer: Answer, step: int) -> dict[str, Any]:
    """The usage of a call: a token for four bytes of the request, half of them cached from step 1 on."""
    given, made = max(len(body) // 4, 1), tokens_of(answer)
    thought = len(list(pieces(answer.reasoning, answer.delta_size)))
    return {
        "input_tokens": given,
        "input_tokens_details": {
            "cached_tokens": given // 2 if step else 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": given + made,
    }


def events(request: Any, answer: Answer, name: str, usage: dict[str, Any]) -> Iterator[bytes]:
    """The events of an answer; `name` is unique to it. Reasoning comes only when asked for."""
    stream = _Stream(request, name)
    yield stream.of_response("created", "in_progress")
    yield stream.of_response("in_progress", "in_progress")
    if thinks(request):
        if answer.redacted:
            yield from stream.reasoning("", answer)
        if answer.reasoning:
            yield from stream.reasoning(answer.reasoning, answer)
    if answer.said:
        yield from stream.message(answer)
    for at, call in enumerate(answer.calls):
        call_id = call.id or f"call_{name}_{at}"
        yield from stream.call(call_id, call.name, to_json(call.arguments), answer)
    counted = usage if answer.has_usage else None
    if answer.stop == "end":
        yield stream.of_response("completed", "completed", usage=counted)
        return
    reason = {"length": "max_output_tokens", "refusal": "content_filter"}[answer.stop]
    details = {"reason": reason}
    yield stream.of_response("incomplete", "incomplete", usage=counted, incomplete_details=details)


class _Stream:
    """Events numbered in their order, of items whose ids tell what goes before them."""

    def __init__(self, request: Any, name: str) -> None:
        self._request = request
        self._name = name
        self._sequence = 0
        self._output: list[Any] = []
        self._thought = ""

    def of_response(self, event: str, status: str, **fields: Any) -> bytes:
        response = {
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": status,
            "model": self._request["model"],
            "store": False,
            "error": None,
            "incomplete_details": None,
            "output": self._output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
            **fields,
        }
        return self._event(f"response.{event}", {"response": response})

    def reasoning(self, text: str, answer: Answer) -> Iterator[bytes]:
        item_id = self._new_id("rs")
        item = {"id": item_id, "type": "reasoning", "summary": []}
        yield self._added({**item, "encrypted_content": "sealed-not-yet"})
        where = {"item_id": item_id, "output_index": len(self._output), "summary_index": 0}
        summary = [{"type": "summary_text", "text": text}] if text else []
        if text:
            part = {"part": {"type": "summary_text", "text": ""}}
            yield self._event("response.reasoning_summary_part.added", {**where, **part})
            yield from self._deltas("response.reasoning_summary_text", where, text, answer)
            yield self._event("response.reasoning_summary_part.done", {**where, "part": summary[0]})
        yield self._done({**item, "summary": summary, "encrypted_content": seal_of(item_id, text)})
        self._thought = f"{item_id.removeprefix('rs_')}_t"

    def message(self, answer: Answer) -> Iterator[bytes]:
        head = {"id": self._new_id("msg"), "type": "message", "role": "assistant"}
        yield self._added({**head, "status": "in_progress", "content": []})
        where = {"item_id": head["id"], "output_index": len(self._output), "content_index": 0}
        part: dict[str, Any] = {
            "type": "output_text",
            "annotations": [],
            "logprobs": [],
            "text": "",
        }
        yield self._event("response.content_part.added", {**where, "part": part})
        yield from self._deltas("response.output_text", where, answer.said, answer)
        part = {**part, "text": answer.said}
        yield self._event("response.content_part.done", {**where, "part": part})
        yield self._done({**head, "status": "completed", "content": [part]})

    def call(self, call_id: str, name: str, arguments: str, answer: Answer) -> Iterator[bytes]:
        head = {"id": self._new_id("fc"), "type": "function_call", "call_id": call_id, "name": name}
        yield self._added({**head, "status": "in_progress", "arguments": ""})
        where = {"item_id": head["id"], "output_index": len(self._output)}
        yield from self._deltas("response.function_call_arguments", where, arguments, answer)
        yield self._done({**head, "status": "completed", "arguments": arguments})

    def _deltas(
        self, kind: str, where: dict[str, Any], text: str, answer: Answer
    ) -> Iterator[bytes]:
        head = json.dumps({"type": f"{kind}.delta", **where})[:-1]
        for piece in pieces(text, answer.delta_size):
            yield self._framed(f"{kind}.delta", f'{head}, "delta": {to_json(piece)}')
        last = "arguments" if kind.endswith("arguments") else "text"
        yield self._event(f"{kind}.done", {**where, last: text})

    def _new_id(self, kind: str) -> str:
        """The item after reasoning has an id that says so."""
        made = self._thought or f"{self._name}_{len(self._output)}"
        self._thought = ""
        return f"{kind}_{made}"

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._event(
            "response.output_item.added", {"output_index": len(self._output), "item": item}
        )

    def _done(self, item: dict[str, Any]) -> bytes:
        self._output.append(item)
        place = {"output_index": len(self._output) - 1, "item": item}
        return self._event("response.output_item.done", place)

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        return self._framed(kind, to_json({"type": kind, **fields})[:-1])

    def _framed(self, kind: str, unfinished: str) -> bytes:
        self._sequence += 1
        numbered = f'{unfinished}, "sequence_number": {self._sequence - 1}}}'
        return f"event: {kind}\ndata: {numbered}\n\n".encode()

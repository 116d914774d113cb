"""OpenAI's Responses: the request.

Nothing is stored at the provider, so an answer goes back as the items it came in, reasoning sealed among them.
Such items belong together: reasoning without what followed it is refused, and what followed it without the
reasoning. An answer of which a part cannot go back as it came is told in plain items, without its reasoning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.json import Encoder

from zene.domain.messages import Block, Item, Message, Reasoning, ToolCall
from zene.llm.base import Request, ToolSpec
from zene.llm.refusals import Refusal
from zene.llm.responses_answer import NAME, ResponsesAnswer
from zene.llm.turns import Answered, Ruled, Said, Spoken, result_of, sendable_id, turns
from zene.llm.wire import Bounds

_encode = Encoder().encode
_LONGEST_ID = 64
_LONGEST_CACHE_KEY = 64
_EFFORTS = ("none", "minimal", "low", "medium", "high")

# The efforts that a model takes, by the beginning of its name; the first that fits counts. None is a model that
# this table does not know: it is asked to reason only where somebody set an effort.
_TAKEN: Sequence[tuple[str, Sequence[str] | None]] = (
    ("gpt-3", ()),
    ("gpt-4", ()),
    ("chatgpt-", ()),
    ("gpt-5-chat", ()),
    ("gpt-5-pro", ("high",)),
    ("gpt-5-codex", ("low", "medium", "high")),
    ("gpt-5.", ("none", "low", "medium", "high")),
    ("gpt-5", ("minimal", "low", "medium", "high")),
    ("gpt-oss", ("low", "medium", "high")),
    ("gpt-", ("none", "low", "medium", "high")),
    ("codex-", ("low", "medium", "high")),
    ("o1", ("low", "medium", "high")),
    ("o3", ("low", "medium", "high")),
    ("o4", ("low", "medium", "high")),
    ("", None),  # other makers' models behind a compatible server
)


class Responses:
    """The wire format."""

    name = NAME
    path = "/responses"

    def headers(self, api_key: str) -> Mapping[str, str]:
        """A server on one's own machine may need no key."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def body(self, request: Request) -> bytes:
        """The request; what is the same for a whole session comes first."""
        key = request.cache_key[:_LONGEST_CACHE_KEY]
        return _encode(
            {
                "model": request.model,
                "stream": True,
                "store": False,
                "max_output_tokens": request.max_output_tokens,
                **_reasoning(request),
                **({"prompt_cache_key": key} if key else {}),
                **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}),
                "input": _input(request.items),
            }
        )

    def answer(self, request: Request) -> ResponsesAnswer:
        """What reads the answer."""
        return ResponsesAnswer(Bounds(request.max_output_tokens))

    def hint(self, refusal: Refusal, request: Request) -> str:
        """Reasoning is what a model or an account may not have."""
        if "summar" in refusal.words and "verif" in refusal.words:
            return "OpenAI shows what a model thinks only to organizations that it has verified"
        if "effort" in refusal.words or "encrypted content" in refusal.words.lower():
            return f"choose another effort for {request.model}, or reach it by api = 'chat'"
        return ""


def _reasoning(request: Request) -> dict[str, Any]:
    """How this model is asked to reason, with what it thinks summarised and sealed; medium by default."""
    name = request.model.removeprefix("ft:").rpartition("/")[2]
    taken = next(taken for prefix, taken in _TAKEN if name.startswith(prefix))
    if taken is None:
        taken = _EFFORTS if request.effort else ()
    if not taken:
        return {}
    effort = _nearest(request.effort or "medium", taken)
    shown = {} if effort == "none" else {"summary": "auto"}
    sealed = {"include": ["reasoning.encrypted_content"]}
    return {"reasoning": {"effort": effort, **shown}, **sealed}


def _nearest(effort: str, taken: Sequence[str]) -> str:
    """The effort, or else the next higher one, or else the highest that there is."""
    wanted = _EFFORTS.index(effort)
    return next((each for each in taken if _EFFORTS.index(each) >= wanted), taken[-1])


def _tool(tool: ToolSpec) -> dict[str, Any]:
    """Not strict: that is the default here, and it makes every parameter a required one."""
    spoken = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", **spoken, "strict": False}


def _input(items: Sequence[Item]) -> list[Any]:
    told: list[Any] = []
    for turn in turns(items):
        match turn:
            case Ruled(text):
                told.append({"role": "system", "content": text})
            case Said(text):
                told.append({"role": "user", "content": text})
            case Answered():
                told += _answered(turn)
                told += [_result(call) for call in turn.calls]
    return told


def _answered(turn: Answered) -> list[Any]:
    """The items as they came, or all of them plain. Reasoning that led to nothing cannot go back."""
    parts = list(turn.parts)
    while parts and isinstance(parts[-1], Reasoning):
        parts.pop()
    blocks = [block for part in parts if (block := _own(part)) is not None]
    if len(blocks) == len(parts):
        return [block.data for block in blocks]
    return [plain for part in parts if (plain := _plain(part)) is not None]


def _own(part: Spoken) -> Block | None:
    block = part.block
    if block is None or block.wire != NAME:
        return None
    if isinstance(part, ToolCall) and _call_id(part) != part.call_id:
        return None
    return block


def _plain(part: Spoken) -> dict[str, Any] | None:
    match part:
        case Message(text) if text:
            return {"role": "assistant", "content": text}
        case ToolCall(_, name, arguments):
            named = {"type": "function_call", "call_id": _call_id(part), "name": name}
            return {**named, "arguments": arguments}
        case _:
            return None


def _result(call: ToolCall) -> dict[str, Any]:
    told = {"type": "function_call_output", "call_id": _call_id(call)}
    return {**told, "output": result_of(call)}


def _call_id(call: ToolCall) -> str:
    return sendable_id(call.call_id, longest=_LONGEST_ID)

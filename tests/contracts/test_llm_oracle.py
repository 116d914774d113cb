"""The official clients as the oracle: the same bytes mean the same to Zene, however they are cut."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from msgspec import Struct
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseIncompleteEvent,
    ResponseOutputMessage,
    ResponseReasoningItem,
)

from tests.model_server import Answer, Fault, ModelServer, Part, Script
from tests.model_server.asking import WireName, asked, hear, prompt, provider_for
from zene.domain.messages import Content, Message, Reasoning, ToolCall
from zene.llm.anthropic_answer import MessagesAnswer
from zene.llm.base import Done, Output, PartDone
from zene.llm.openai_answer import ChatAnswer
from zene.llm.responses_answer import ResponsesAnswer
from zene.llm.sse import EventParser
from zene.llm.wire import Answer as Reader
from zene.llm.wire import Bounds

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

STREAMS = Path(__file__).parents[1] / "data" / "llm"
NAMES = sorted(path.name for path in STREAMS.glob("*.sse"))


class Meaning(Struct, frozen=True, kw_only=True):
    """What a stream says, in words of neither side."""

    text: str
    reasoning: tuple[str, ...]
    sealed: tuple[Any, ...]
    calls: tuple[tuple[str, str, Any], ...]
    stop: str
    tokens: tuple[int, int, int, int]
    answer_id: str


def wire_of(name: str) -> WireName:
    wires: dict[str, WireName] = {"anthropic": "anthropic", "responses": "openai.responses"}
    return wires.get(name.partition("-")[0], "openai.chat")


def meaning_of(outputs: Sequence[Output]) -> Meaning:
    """What Zene understood."""
    contents = [output.content for output in outputs if isinstance(output, PartDone)]
    done = outputs[-1]
    assert isinstance(done, Done)
    assert done.usage is not None
    usage = done.usage
    return Meaning(
        text="".join(part.text for part in contents if isinstance(part, Message)),
        reasoning=tuple(
            part.text for part in contents if isinstance(part, Reasoning) and part.text
        ),
        sealed=tuple(_sealed(contents)),
        calls=tuple(
            (part.call_id, part.name, json.loads(part.arguments))
            for part in contents
            if isinstance(part, ToolCall)
        ),
        stop=done.stop_reason,
        tokens=(
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
        ),
        answer_id=done.response_id,
    )


def _sealed(contents: Iterable[Content]) -> list[Any]:
    blocks = [part.block for part in contents if isinstance(part, Reasoning)]
    return [json.loads(bytes(each.data)) for each in blocks if each and each.wire != "openai.chat"]


async def openai_says(url: str) -> Meaning:
    """What OpenAI's own client understood."""
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as client,
        client.chat.completions.stream(
            model="m",
            messages=[{"role": "user", "content": "Hi"}],
            stream_options={"include_usage": True},
        ) as stream,
    ):
        try:
            answer: ChatCompletion = await stream.get_final_completion()
        except openai.LengthFinishReasonError as cut:
            answer = cut.completion
    choice = answer.choices[0]
    message, usage = choice.message, answer.usage
    assert usage is not None
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    thought = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    reasoning = (message.model_extra or {}).get("reasoning_content")
    calls = [each for each in message.tool_calls or () if each.type == "function"]
    stops = {"stop": "end", "tool_calls": "tool_calls", "length": "length"}
    return Meaning(
        text=(message.content or "") + (message.refusal or ""),
        reasoning=(reasoning,) if reasoning else (),
        sealed=(),
        calls=tuple(
            (each.id, each.function.name, json.loads(each.function.arguments)) for each in calls
        ),
        stop=stops[choice.finish_reason],
        tokens=(usage.prompt_tokens, cached or 0, usage.completion_tokens, thought or 0),
        answer_id=answer.id,
    )


async def openai_says_of_responses(url: str) -> Meaning:
    """What OpenAI's own client understood of Responses."""
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as client,
        client.responses.stream(
            model="m", input=[{"role": "user", "content": "Hi"}], store=False
        ) as stream,
    ):
        ends = (ResponseCompletedEvent, ResponseIncompleteEvent)
        answer = [event.response async for event in stream if isinstance(event, ends)][-1]
    usage = answer.usage
    assert usage is not None
    thoughts = [item for item in answer.output if isinstance(item, ResponseReasoningItem)]
    messages = [item for item in answer.output if isinstance(item, ResponseOutputMessage)]
    calls = [item for item in answer.output if isinstance(item, ResponseFunctionToolCall)]
    parts = [part for item in messages for part in item.content]
    declines = any(part.type == "refusal" for part in parts)
    stops = {None: "tool_calls" if calls else "end", "max_output_tokens": "length"}
    reason = answer.incomplete_details.reason if answer.incomplete_details else None
    return Meaning(
        text="".join(part.refusal if part.type == "refusal" else part.text for part in parts),
        reasoning=tuple(
            "\n\n".join(part.text for part in item.summary) for item in thoughts if item.summary
        ),
        sealed=tuple(item.to_dict() for item in thoughts),
        calls=tuple((item.call_id, item.name, json.loads(item.arguments)) for item in calls),
        stop="refusal" if declines else stops.get(reason, "refusal"),
        tokens=(
            usage.input_tokens,
            usage.input_tokens_details.cached_tokens,
            usage.output_tokens,
            usage.output_tokens_details.reasoning_tokens,
        ),
        answer_id=answer.id,
    )


async def anthropic_says(url: str) -> Meaning:
    """What Anthropic's own client understood."""
    async with (
        anthropic.AsyncAnthropic(base_url=url, api_key="sk", max_retries=0) as client,
        client.messages.stream(
            model="claude-opus-4-7",
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=999,
        ) as stream,
    ):
        answer = await stream.get_final_message()
    blocks = answer.content
    usage = answer.usage
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    stops = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "refusal"}
    return Meaning(
        text="".join(block.text for block in blocks if block.type == "text"),
        reasoning=tuple(
            block.thinking for block in blocks if block.type == "thinking" and block.thinking
        ),
        sealed=tuple(
            block.to_dict() for block in blocks if block.type in ("thinking", "redacted_thinking")
        ),
        calls=tuple(
            (block.id, block.name, block.input) for block in blocks if block.type == "tool_use"
        ),
        stop=stops.get(answer.stop_reason or "", "end"),
        tokens=(
            usage.input_tokens + read + written,
            read,
            usage.output_tokens,
            details.thinking_tokens if details else 0,
        ),
        answer_id=answer.id,
    )


ORACLES = {
    "openai.chat": openai_says,
    "openai.responses": openai_says_of_responses,
    "anthropic": anthropic_says,
}
READERS: dict[WireName, Callable[[Bounds], Reader]] = {
    "openai.chat": ChatAnswer,
    "openai.responses": ResponsesAnswer,
    "anthropic": MessagesAnswer,
}


@pytest.fixture(params=NAMES)
async def stream(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, ModelServer]]:
    """A kept stream, and a server that answers with it."""
    name = request.param
    body = [Part(text=(STREAMS / name).read_bytes().decode())]
    script = Script(answers=[Answer(fault=Fault(body=body))])
    async with ModelServer({"*": script}) as server:
        yield name, server


async def test_a_stream_means_to_zene_what_it_means_to_the_official_client(
    stream: tuple[str, ModelServer],
) -> None:
    name, server = stream
    wire = wire_of(name)
    provider = provider_for(server, wire)
    heard = await hear(provider, asked(provider, prompt()))
    await provider.close()
    assert heard.error is None
    assert meaning_of(heard.outputs) == await ORACLES[wire](server.url)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_means_the_same_cut_at_every_byte(name: str) -> None:
    content = (STREAMS / name).read_bytes()
    whole = _read(name, [content])
    meaning_of(whole)
    for at in range(1, len(content)):
        assert _read(name, [content[:at], content[at:]]) == whole
    assert _read(name, [content[at : at + 1] for at in range(len(content))]) == whole


def _read(name: str, chunks: Iterable[bytes]) -> list[Output]:
    answer = READERS[wire_of(name)](Bounds(16_384))
    parser = EventParser()
    outputs: list[Output] = []
    for chunk in chunks:
        for event in parser.feed(chunk):
            outputs += answer.read(event)
    return [*outputs, *answer.finish()]


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_that_ends_at_any_byte_is_whole_or_an_error(name: str) -> None:
    content = (STREAMS / name).read_bytes()
    script = Script(answers=[Answer(fault=Fault(body=[Part(text=content.decode())]))])
    async with ModelServer({"*": script}) as server:
        provider = provider_for(server, wire_of(name))
        whole = await hear(provider, asked(provider, prompt()))
        for at in range(0, len(content), 7):
            body = [Part(text=content.decode())]
            server.scripts["*"] = Script(answers=[Answer(fault=Fault(body=body, cut_at=at))])
            heard = await hear(provider, asked(provider, prompt()))
            if heard.error is None:
                assert heard.contents == whole.contents
            else:
                expected = "model_interrupted" if heard.has_begun else "model_unreachable"
                assert heard.error.code == expected
        await provider.close()


def test_every_kept_stream_names_what_documents_it() -> None:
    manifest = json.loads((STREAMS / "manifest.json").read_text())
    assert sorted(manifest["streams"]) == NAMES

"""What OpenAI is sent by Responses, held against what it refuses there, and when it is reached so."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from msgspec import Raw, structs

from tests.model_server import Answer, Call, Fault, ModelServer, Part, Script
from tests.model_server.asking import SHELL, Heard, answered, asked, hear, prompt, provider_for
from zene.domain.messages import Block, Content, Item, Message, Reasoning, ToolCall
from zene.llm.base import Effort, ModelInfo, PartDone, Provider
from zene.llm.http import Endpoint
from zene.llm.openai import open_provider

LS = Call(name="shell", arguments={"command": "ls"})
TURNS = [
    Answer(reasoning="Hm. I look.", redacted="r", text="I look.", calls=[LS, LS]),
    Answer(reasoning="So.", calls=[LS]),
    Answer(text="Done."),
]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer({"*": Script(answers=TURNS)}) as running:
        yield running


@pytest.fixture
async def provider(server: ModelServer) -> AsyncIterator[Provider]:
    opened = provider_for(server, "openai.responses")
    yield opened
    await opened.close()


def body_of(server: ModelServer, number: int = -1) -> Any:
    return json.loads(server.requests[number].body)


async def played(provider: Provider, turns: int) -> tuple[list[Item], Heard]:
    """The history of so many turns, and what was heard in the last."""
    items, heard = prompt(), Heard(outputs=[])
    for step in range(1, turns + 1):
        heard = await hear(provider, asked(provider, items))
        assert heard.error is None
        items = answered(items, heard, step)
    return items, heard


def with_parts(items: Sequence[Item], parts: Sequence[Content], step: int) -> list[Item]:
    """The history after an answer of these parts."""
    return answered(items, Heard(outputs=[PartDone(n, part) for n, part in enumerate(parts)]), step)


@pytest.mark.parametrize(
    ("url", "api", "wire"),
    [
        ("https://api.openai.com/v1", "", "openai.responses"),
        ("https://eu.api.openai.com/v1", "", "openai.responses"),
        ("https://api.openai.com/v1", "chat", "openai.chat"),
        ("https://api.openai.com.example/v1", "", "openai.chat"),
        ("https://notapi.openai.com.example/v1", "", "openai.chat"),
        ("https://mine.openai.azure.com/openai/v1", "", "openai.chat"),
        ("http://127.0.0.1:8000/v1", "", "openai.chat"),
        ("http://127.0.0.1:8000/v1", "responses", "openai.responses"),
    ],
)
async def test_openai_is_reached_by_responses_and_others_by_chat_unless_told(
    url: str, api: str, wire: str
) -> None:
    info = ModelInfo(name="m", window=128_000)
    provider = open_provider(info, Endpoint(base_url=url, api_key="k", api=api))
    assert provider.wire == wire
    await provider.close()


async def test_nothing_is_stored_and_what_was_thought_is_asked_for_sealed(
    server: ModelServer, provider: Provider
) -> None:
    await hear(provider, asked(provider, prompt(), cache_key="ses_1", effort="high"))
    body = body_of(server)
    assert list(body)[-1] == "input"
    assert body["store"] is False
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert body["prompt_cache_key"] == "ses_1"
    assert body["max_output_tokens"] == 16_384
    assert body["tools"][0]["name"] == SHELL.name
    assert body["tools"][0]["strict"] is False


async def test_a_cache_key_that_is_too_long_is_cut(server: ModelServer, provider: Provider) -> None:
    heard = await hear(provider, asked(provider, prompt(), cache_key="s" * 100))
    assert heard.error is None
    assert body_of(server)["prompt_cache_key"] == "s" * 64


@pytest.mark.parametrize(
    ("model", "efforts"),
    [
        ("gpt-5.4", ("none", "low", "medium", "high", "medium")),
        ("gpt-6", ("none", "low", "medium", "high", "medium")),
        ("gpt-5-mini", ("minimal", "low", "medium", "high", "medium")),
        ("gpt-5-pro", ("high", "high", "high", "high", "high")),
        ("gpt-5-codex", ("low", "low", "medium", "high", "medium")),
        ("o4-mini", ("low", "low", "medium", "high", "medium")),
        ("gpt-4.1", (None,) * 5),
        ("ft:gpt-4.1:somebody", (None,) * 5),
        ("gpt-5-chat-latest", (None,) * 5),
        ("some-local-model", ("none", "low", "medium", "high", None)),
        ("openai/gpt-5", ("minimal", "low", "medium", "high", "medium")),
    ],
)
async def test_a_model_is_asked_for_an_effort_that_it_takes(
    server: ModelServer, model: str, efforts: Sequence[str | None]
) -> None:
    provider = provider_for(server, "openai.responses", model=model)
    wanted: tuple[Effort | None, ...] = ("none", "low", "medium", "high", None)
    for effort in wanted:
        heard = await hear(provider, asked(provider, prompt(), effort=effort))
        assert heard.error is None
    await provider.close()
    bodies = [json.loads(request.body) for request in server.requests]
    assert tuple(body.get("reasoning", {}).get("effort") for body in bodies) == tuple(efforts)
    assert ["include" in body for body in bodies] == ["reasoning" in body for body in bodies]


async def test_each_answer_goes_back_as_the_items_it_came_in(
    server: ModelServer, provider: Provider
) -> None:
    items, last = await played(provider, 3)
    assert last.text == "Done."
    blocks = [getattr(item.content, "block", None) for item in items]
    sealed = [json.loads(bytes(block.data)) for block in blocks if block]
    sent = [item for item in body_of(server)["input"] if "id" in item]
    assert sent == sealed[:-1]
    assert [item["type"] for item in sent] == [
        *("reasoning", "reasoning", "message", "function_call", "function_call"),
        *("reasoning", "function_call"),
    ]
    assert all(item["id"] != item.get("call_id") for item in sent)


async def test_every_request_begins_with_the_one_before(
    server: ModelServer, provider: Provider
) -> None:
    await played(provider, 3)
    one, two, three = (request.body for request in server.requests)
    assert two.startswith(one.removesuffix("]}"))
    assert three.startswith(two.removesuffix("]}"))


async def test_an_answer_without_all_its_items_goes_back_plain(
    server: ModelServer, provider: Provider
) -> None:
    items, heard = await played(provider, 1)
    unsealed = [
        structs.replace(part, block=None) if isinstance(part, ToolCall) else part
        for part in heard.contents
    ]
    again = await hear(provider, asked(provider, with_parts(items[:2], unsealed, 1)))
    assert again.error is None
    kinds = [item.get("type", item.get("role")) for item in body_of(server)["input"][2:]]
    assert kinds == ["assistant", *["function_call"] * 2, *["function_call_output"] * 2]


@pytest.mark.parametrize("kept", [1, 2, 3])
async def test_reasoning_that_led_to_nothing_stays_at_home(
    server: ModelServer, provider: Provider, kept: int
) -> None:
    """So it is where the cap fell into the reasoning, and where refused calls were dropped."""
    items, heard = await played(provider, 1)
    again = await hear(provider, asked(provider, with_parts(items[:2], heard.contents[:kept], 1)))
    assert again.error is None
    sent = [item["type"] for item in body_of(server)["input"] if "id" in item]
    assert sent == (["reasoning", "reasoning", "message"] if kept == 3 else [])


async def test_a_call_id_that_is_too_long_is_shortened_for_the_call_and_its_output(
    server: ModelServer, provider: Provider
) -> None:
    calls = [ToolCall(f"{'c' * 70}{n}", "shell", "{}") for n in range(2)]
    heard = await hear(provider, asked(provider, with_parts(prompt(), calls, 1)))
    assert heard.error is None
    ids = [item["call_id"] for item in body_of(server)["input"] if "call_id" in item]
    assert ids[:2] == ids[2:]
    assert len(set(ids)) == 2


async def test_a_call_that_came_with_too_long_an_id_is_not_sent_as_it_came(
    server: ModelServer, provider: Provider
) -> None:
    long = Call(name="shell", arguments={"command": "ls"}, id="c" * 70)
    server.scripts["*"] = Script(answers=[Answer(reasoning="Hm.", calls=[long]), Answer(text="Ok")])
    _, heard = await played(provider, 2)
    assert heard.text == "Ok"


@pytest.mark.parametrize("lost", [Reasoning, ToolCall])
async def test_what_belongs_together_is_refused_apart(
    server: ModelServer, provider: Provider, lost: type[Content]
) -> None:
    """The model server is as strict as the provider: this is what sending answers back whole is for."""
    items, heard = await played(provider, 1)
    parts = [part for part in heard.contents if not isinstance(part, lost)]
    if lost is ToolCall:
        parts.remove(next(part for part in parts if isinstance(part, Message)))
        parts.append(heard.calls[0])
    again = await hear(provider, asked(provider, with_parts(items[:2], parts, 1)))
    assert again.error is not None
    assert again.error.code == "model_rejected"
    assert "was provided without its required" in again.error.message


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (
            "Your organization must be verified to generate reasoning summaries.",
            "only to organizations that it has verified",
        ),
        ("Unsupported value: 'none' for reasoning.effort", "choose another effort for gpt-5.4"),
        ("Encrypted content is not supported with this model.", "api = 'chat'"),
        ("The model is tired.", ""),
    ],
)
async def test_a_model_that_may_not_reason_is_told_with_the_cure(
    server: ModelServer, provider: Provider, words: str, cure: str
) -> None:
    refusal = [Part(text=json.dumps({"error": {"message": words}}))]
    server.scripts["*"] = Script(answers=[Answer(fault=Fault(status=400, body=refusal))])
    heard = await hear(provider, asked(provider, prompt()))
    assert heard.error is not None
    assert heard.error.code == "model_rejected"
    assert words in heard.error.message
    assert cure in heard.error.message
    assert heard.error.message.endswith(")") == bool(cure)


async def test_reasoning_by_its_id_alone_is_not_found(
    server: ModelServer, provider: Provider
) -> None:
    items, heard = await played(provider, 1)
    data = json.loads(bytes(heard.thoughts[0].block.data))  # type: ignore[union-attr]  # it came sealed
    del data["encrypted_content"]
    unsealed = Reasoning("", Block(wire="openai.responses", data=Raw(json.dumps(data).encode())))
    parts = [unsealed, *heard.contents[1:]]
    again = await hear(provider, asked(provider, with_parts(items[:2], parts, 1)))
    assert again.error is not None
    assert again.error.code == "model_not_found"
    assert "not persisted" in again.error.message

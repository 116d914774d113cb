"""What each provider is sent, held against what that provider refuses."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.model_server.asking import (
    Heard,
    answered,
    asked,
    hear,
    prompt,
    provider_for,
)
from tests.planted import KEY
from zene.domain.messages import (
    Content,
    Item,
    Message,
    Reasoning,
    ToolCall,
    ToolResult,
    UserMessage,
)
from zene.llm.base import ModelInfo, PartDone
from zene.llm.http import Client, Endpoint
from zene.llm.openai import ChatCompletions
from zene.llm.wire import HttpProvider

LS = Call(name="shell", arguments={"command": "ls"})
CHAT = {"*": Script(answers=[Answer(text="Yes.")])}
THINKING = {"*": Script(answers=[Answer(reasoning="Hm.", calls=[LS]), Answer(text="Yes.")])}


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(CHAT) as running:
        yield running


def at_openai(server: ModelServer, model: str) -> HttpProvider:
    """The provider as it is at OpenAI's own address."""
    endpoint = Endpoint(base_url=f"{server.url}/v1", api_key=KEY)
    info = ModelInfo(name=model, window=1_000_000)
    wire = ChatCompletions(is_openai=True)
    return HttpProvider(wire, info, endpoint, Client(endpoint.base_url))


def body_of(server: ModelServer, number: int = -1) -> Any:
    return json.loads(server.requests[number].body)


@pytest.mark.parametrize("effort", [None, "low", "high"])
async def test_openais_reasoning_models_refuse_tools_with_the_cure(
    server: ModelServer, effort: str | None
) -> None:
    provider = at_openai(server, "gpt-5.4")
    heard = await hear(provider, asked(provider, prompt(), effort=effort))
    await provider.close()
    assert heard.error is not None
    assert heard.error.code == "model_rejected"
    assert "set the effort to none" in heard.error.message
    assert "Responses (api = 'responses')" in heard.error.message


@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.6-terra", "gpt-4.1"])
async def test_openais_models_take_tools_without_reasoning(server: ModelServer, model: str) -> None:
    provider = at_openai(server, model)
    request = asked(provider, prompt(), effort="none", cache_key="ses_1")
    heard = await hear(provider, request)
    await provider.close()
    assert heard.text == "Yes."
    body = body_of(server)
    assert body["max_completion_tokens"] == 16_384
    assert body["prompt_cache_key"] == "ses_1"
    assert "max_tokens" not in body


async def test_other_servers_are_sent_no_field_that_only_openai_knows(server: ModelServer) -> None:
    provider = provider_for(server, "openai.chat", model="llama")
    await hear(provider, asked(provider, prompt(), cache_key="ses_1"))
    await provider.close()
    assert set(body_of(server)) == {
        *("model", "stream", "stream_options", "tools", "max_tokens", "messages")
    }


async def test_openai_is_sent_short_ids_and_no_reasoning_of_other_servers(
    server: ModelServer,
) -> None:
    server.scripts = THINKING
    elsewhere = provider_for(server, "openai.chat", model="deepseek-chat")
    first = await hear(elsewhere, asked(elsewhere, prompt()))
    await elsewhere.close()
    calls = [ToolCall(f"{'c' * 40}{n}", "shell", "{}") for n in range(2)]
    parts: list[Content] = [*first.thoughts, *calls]
    heard = Heard(outputs=[PartDone(n, part) for n, part in enumerate(parts)])
    provider = at_openai(server, "gpt-4.1")
    second = await hear(provider, asked(provider, answered(prompt(), heard, 1)))
    await provider.close()
    assert second.error is None
    said, *results = body_of(server)["messages"][2:]
    ids = [call["id"] for call in said["tool_calls"]]
    assert ids == [each["tool_call_id"] for each in results]
    assert len(set(ids)) == 2


async def test_reasoning_of_a_compatible_server_goes_back_under_its_name(
    server: ModelServer,
) -> None:
    server.scripts = THINKING
    provider = provider_for(server, "openai.chat", model="deepseek-chat")
    first = await hear(provider, asked(provider, prompt()))
    await hear(provider, asked(provider, answered(prompt(), first, 1)))
    await provider.close()
    said = [message for message in body_of(server)["messages"] if message["role"] == "assistant"]
    assert said[0]["reasoning_content"] == "Hm."
    assert said[0]["content"] is None


async def test_calls_of_one_answer_are_one_message_and_those_of_two_are_two(
    server: ModelServer,
) -> None:
    provider = provider_for(server, "openai.chat")
    two = Heard(
        outputs=[
            PartDone(0, Message("I ")),
            PartDone(1, Message("look.")),
            PartDone(2, ToolCall("a", "shell", "{}")),
            PartDone(3, ToolCall("b", "shell", "{}")),
        ]
    )
    history = answered(answered(prompt(), two, 1), two, 2)
    heard = await hear(provider, asked(provider, history))
    await provider.close()
    assert heard.error is None
    roles = [message["role"] for message in body_of(server)["messages"]]
    assert roles == ["system", "user", *(["assistant", "tool", "tool"] * 2)]


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-opus-4-7", {"type": "adaptive", "display": "summarized"}),
        ("claude-sonnet-4-6", {"type": "adaptive", "display": "summarized"}),
        ("claude-opus-5", {"type": "adaptive", "display": "summarized"}),
        ("claude-opus-4-5-20251101", {"type": "enabled", "budget_tokens": 8192}),
        ("claude-haiku-4-5", {"type": "enabled", "budget_tokens": 8192}),
        ("claude-sonnet-4-20250514", {"type": "enabled", "budget_tokens": 8192}),
        ("claude-3-7-sonnet-latest", {"type": "enabled", "budget_tokens": 8192}),
        ("claude-3-5-haiku-latest", None),
        ("glm-4.7", None),
    ],
)
async def test_a_model_is_asked_to_think_in_the_way_it_takes(
    server: ModelServer, model: str, thinking: object
) -> None:
    provider = provider_for(server, "anthropic", model=model)
    for effort in (None, "none", "low"):
        heard = await hear(provider, asked(provider, prompt(), effort=effort))
        assert heard.error is None
    await provider.close()
    assert body_of(server, 0).get("thinking") == thinking
    assert "thinking" not in body_of(server, 1)


@pytest.mark.parametrize(("cap", "budget"), [(16_384, 8192), (8192, 4096), (2048, 1024)])
async def test_a_thinking_budget_leaves_room_for_the_answer(
    server: ModelServer, cap: int, budget: int
) -> None:
    provider = provider_for(server, "anthropic", model="claude-haiku-4-5")
    heard = await hear(provider, asked(provider, prompt(), max_output_tokens=cap))
    await provider.close()
    assert heard.error is None
    assert body_of(server)["thinking"]["budget_tokens"] == budget


async def test_where_there_is_no_room_to_think_none_is_asked_for(server: ModelServer) -> None:
    provider = provider_for(server, "anthropic", model="claude-haiku-4-5")
    heard = await hear(provider, asked(provider, prompt(), max_output_tokens=1024))
    await provider.close()
    assert heard.error is None
    assert "thinking" not in body_of(server)


async def test_cache_breakpoints_are_at_tools_system_and_the_last_two_turns(
    server: ModelServer,
) -> None:
    server.scripts = {"*": Script(answers=[Answer(calls=[LS, LS])] * 5)}
    provider = provider_for(server, "anthropic")
    items = prompt()
    for step in range(1, 6):
        heard = await hear(provider, asked(provider, items))
        assert heard.error is None
        items = answered(items, heard, step)
    await provider.close()
    body = body_of(server)
    assert "cache_control" in body["tools"][-1]
    assert "cache_control" in body["system"][-1]
    marked = [
        number
        for number, message in enumerate(body["messages"])
        for block in message["content"]
        if "cache_control" in block
    ]
    told = [number for number, each in enumerate(body["messages"]) if each["role"] == "user"]
    assert marked == told[-2:]


@pytest.mark.parametrize("status", ["failed", "denied", "interrupted"])
async def test_a_call_that_did_not_succeed_is_marked_as_an_error(
    server: ModelServer, status: Any
) -> None:
    result = ToolResult(status=status, output="")
    call = ToolCall("toolu_1", "shell", "{}", result)
    items = [*prompt(), Item(id="c", task_id="tsk_1", step=1, content=call)]
    provider = provider_for(server, "anthropic")
    heard = await hear(provider, asked(provider, items))
    await provider.close()
    assert heard.error is None
    assert body_of(server)["messages"][-1]["content"][0]["is_error"] is True


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_empty_texts_are_not_sent_where_they_are_refused(
    server: ModelServer, text: str
) -> None:
    said: list[Content] = [Message(text), Reasoning(text), UserMessage(text)]
    items = [Item(id=f"i{n}", task_id="tsk_1", step=1, content=each) for n, each in enumerate(said)]
    provider = provider_for(server, "anthropic")
    heard = await hear(provider, asked(provider, [*prompt(), *items]))
    await provider.close()
    assert heard.error is None


async def test_thinking_that_is_lost_is_refused(server: ModelServer) -> None:
    """The model server is as strict as the provider: this is what sending blocks back is for."""
    server.scripts = THINKING
    provider = provider_for(server, "anthropic")
    first = await hear(provider, asked(provider, prompt()))
    lost = Heard(
        outputs=[PartDone(0, part) for part in first.contents if not isinstance(part, Reasoning)]
    )
    second = await hear(provider, asked(provider, answered(prompt(), lost, 1)))
    await provider.close()
    assert second.error is not None
    assert second.error.code == "model_rejected"

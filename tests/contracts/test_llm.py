"""What every model provider must do. A wire format is done when it passes this unchanged."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from tests.model_server import Answer, Call, Fault, ModelServer, Script, play_trajectory
from tests.model_server.asking import (
    WIRES,
    Heard,
    WireName,
    answered,
    asked,
    hear,
    prompt,
    provider_for,
)
from zene.domain.messages import Compaction, Item, Message, Reasoning, ToolCall, UserMessage
from zene.llm.base import CallStarted, Delta, Done, PartDone, Provider

RUN = Path(__file__).parents[1] / "data" / "trajectories" / "marshmallow-1867.json"
LS = Call(name="shell", arguments={"command": "ls"})
PWD = Call(name="shell", arguments={"command": "pwd", "note": 'grüße 🙂 " \\ \n'})


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> WireName:
    name: WireName = request.param
    return name


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer({}) as running:
        yield running


@pytest.fixture
async def provider(server: ModelServer, wire: WireName) -> AsyncIterator[Provider]:
    opened = provider_for(server, wire)
    yield opened
    await opened.close()


async def one(server: ModelServer, provider: Provider, answer: Answer, **fields: object) -> Heard:
    """What comes out of one call that gets this answer."""
    server.scripts["*"] = Script(answers=[answer])
    heard = await hear(provider, asked(provider, prompt(), **fields))
    assert heard.error is None
    return heard


async def test_text_comes_as_deltas_that_join_to_the_message(
    server: ModelServer, provider: Provider
) -> None:
    heard = await one(server, provider, Answer(text="Grüße, all is well 🙂.", delta_size=3))
    assert heard.text == "Grüße, all is well 🙂." == heard.streamed
    assert heard.done.stop_reason == "end"
    assert heard.done.response_id


async def test_reasoning_comes_before_what_it_leads_to(
    server: ModelServer, provider: Provider
) -> None:
    heard = await one(server, provider, Answer(reasoning="Hm, so.", text="Yes.", calls=[LS]))
    assert [type(part) for part in heard.contents] == [Reasoning, Message, ToolCall]
    assert heard.thoughts[0].text == "Hm, so."


async def test_parallel_calls_stay_apart(server: ModelServer, provider: Provider) -> None:
    heard = await one(server, provider, Answer(calls=[LS, PWD, LS], delta_size=1))
    assert [json.loads(call.arguments) for call in heard.calls] == [
        dict(call.arguments) for call in (LS, PWD, LS)
    ]
    assert len({call.call_id for call in heard.calls}) == 3
    assert heard.done.stop_reason == "tool_calls"


async def test_a_call_without_arguments_has_an_empty_object(
    server: ModelServer, provider: Provider
) -> None:
    heard = await one(server, provider, Answer(calls=[Call(name="shell")]))
    assert json.loads(heard.calls[0].arguments) == {}


async def test_outputs_keep_to_their_order(server: ModelServer, provider: Provider) -> None:
    heard = await one(server, provider, Answer(reasoning="a b", text="c d", calls=[LS, PWD]))
    assert isinstance(heard.outputs[-1], Done)
    open_parts: dict[int, str] = {}
    closed: list[int] = []
    for output in heard.outputs[:-1]:
        match output:
            case CallStarted(index):
                open_parts[index] = ""
            case Delta(index, _, text):
                assert index not in closed
                open_parts[index] = open_parts.get(index, "") + text
            case PartDone(index, content):
                whole = content.arguments if isinstance(content, ToolCall) else content.text  # type: ignore[union-attr]  # a model says nothing else
                assert open_parts[index] == whole
                closed.append(index)
            case _:
                raise AssertionError(output)
    assert closed == [0, 1, 2, 3]


@pytest.mark.parametrize(("stop", "reason"), [("length", "length"), ("refusal", "refusal")])
async def test_why_an_answer_ends_is_told(
    server: ModelServer, provider: Provider, stop: str, reason: str
) -> None:
    heard = await one(server, provider, Answer(text="I", stop=stop))  # type: ignore[arg-type]  # of the parameters above
    assert heard.done.stop_reason == reason


async def test_usage_is_the_servers_own_count(server: ModelServer, provider: Provider) -> None:
    heard = await one(server, provider, Answer(reasoning="a b c", text="d e", calls=[LS]))
    usage = heard.done.usage
    counted = server.requests[0].usage
    assert usage is not None
    assert counted is not None
    given = counted.get("prompt_tokens") or (
        counted["input_tokens"]
        + counted.get("cache_creation_input_tokens", 0)
        + counted.get("cache_read_input_tokens", 0)
    )
    assert usage.input_tokens == given
    assert usage.output_tokens == counted.get("completion_tokens", counted.get("output_tokens"))
    assert not usage.estimated


async def test_missing_usage_is_none(server: ModelServer, provider: Provider) -> None:
    heard = await one(server, provider, Answer(text="d e", has_usage=False))
    assert heard.done.usage is None


async def test_usage_below_what_was_streamed_is_corrected_and_marked(
    server: ModelServer, provider: Provider
) -> None:
    swaps = (
        ('"completion_tokens": 51', '"completion_tokens": 2'),
        ('"output_tokens": 51', '"output_tokens": 2'),
    )
    heard = await one(server, provider, Answer(tokens=50, fault=Fault(swaps=swaps)))
    usage = heard.done.usage
    assert usage is not None
    assert (usage.output_tokens, usage.estimated) == (50, True)


async def test_cached_tokens_are_told_apart(server: ModelServer, provider: Provider) -> None:
    server.scripts["*"] = Script(answers=[Answer(calls=[LS]), Answer(text="Done.")])
    first = await hear(provider, asked(provider, prompt()))
    second = await hear(provider, asked(provider, answered(prompt(), first, 1)))
    assert first.done.usage
    assert second.done.usage
    assert first.done.usage.cached_tokens == 0
    assert 0 < second.done.usage.cached_tokens < second.done.usage.input_tokens


@pytest.mark.parametrize("reasoning", [False, True])
async def test_a_recorded_run_is_played_to_its_end(
    server: ModelServer, provider: Provider, *, reasoning: bool
) -> None:
    server.scripts["*"] = play_trajectory(RUN, reasoning=reasoning)
    items, step = prompt(), 0
    while True:
        step += 1
        heard = await hear(provider, asked(provider, items))
        assert heard.error is None
        items = answered(items, heard, step)
        if heard.done.stop_reason != "tool_calls":
            break
    names = [item.content.name for item in items if isinstance(item.content, ToolCall)]
    assert names == [
        *("write_file", "shell", "shell", "find_files", "read_file", "edit_file", "shell", "shell")
    ]
    assert heard.text == "The rounding in TimeDelta serialization is fixed."
    assert [request.status for request in server.requests] == [200] * 9


async def test_what_was_sealed_goes_back_as_it_came(
    server: ModelServer, provider: Provider
) -> None:
    thinking = Answer(reasoning="Hm é \u2028.", redacted="r1", text="So.", calls=[LS, PWD])
    server.scripts["*"] = Script(answers=[thinking, Answer(text="Done.")])
    first = await hear(provider, asked(provider, prompt()))
    second = await hear(provider, asked(provider, answered(prompt(), first, 1)))
    assert second.error is None
    assert second.text == "Done."


async def test_the_same_request_is_the_same_bytes_and_a_longer_one_begins_with_them(
    server: ModelServer, provider: Provider
) -> None:
    server.scripts["*"] = Script(answers=[Answer(calls=[LS]), Answer(text="Done.")])
    first = await hear(provider, asked(provider, prompt()))
    await hear(provider, asked(provider, prompt()))
    await hear(provider, asked(provider, answered(prompt(), first, 1)))
    one, again, longer = (request.body for request in server.requests)
    assert one == again
    unmarked = [body.replace(',"cache_control":{"type":"ephemeral"}', "") for body in (one, longer)]
    assert unmarked[1].startswith(unmarked[0].removesuffix("]}"))


async def test_items_of_another_wire_format_are_sent_without_their_blocks(
    server: ModelServer, wire: WireName, provider: Provider
) -> None:
    other = WIRES[WIRES.index(wire) - 1]
    server.scripts["*"] = Script(
        answers=[Answer(reasoning="Hm.", calls=[Call(name="shell", id="functions.shell:0")])]
    )
    elsewhere = provider_for(server, other)
    first = await hear(elsewhere, asked(elsewhere, prompt()))
    await elsewhere.close()
    server.scripts["*"] = Script(answers=[Answer(calls=[LS]), Answer(text="Done.")])
    second = await hear(provider, asked(provider, answered(prompt(), first, 1)))
    assert second.text == "Done."
    assert "Hm." not in server.requests[1].body


async def test_steering_and_a_compaction_are_told_as_the_user(
    server: ModelServer, provider: Provider
) -> None:
    server.scripts["*"] = Script(answers=[Answer(calls=[LS])])
    items = prompt()
    items[1] = Item(id="c", task_id="t", step=0, content=Compaction("All went well.", "AGENTS: x"))
    heard = await hear(provider, asked(provider, items))
    steering = Item(id="s", task_id="tsk_1", step=1, content=UserMessage("Be quick."))
    again = await hear(provider, asked(provider, [*answered(items, heard, 1), steering]))
    assert again.error is None
    assert "All went well." in server.requests[1].body
    assert "AGENTS: x" in server.requests[1].body
    assert "Be quick." in server.requests[1].body


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "", "null", '{"a": NaN}'])
async def test_arguments_that_are_no_object_can_be_sent_back(
    server: ModelServer, provider: Provider, arguments: str
) -> None:
    server.scripts["*"] = Script(answers=[Answer(calls=[LS]), Answer(text="Done.")])
    first = await hear(provider, asked(provider, prompt()))
    broken = ToolCall(first.calls[0].call_id, "shell", arguments)
    heard = Heard(outputs=[PartDone(0, broken)])
    second = await hear(provider, asked(provider, answered(prompt(), heard, 1)))
    assert second.error is None


@pytest.mark.parametrize("effort", ["none", "low", "medium", "high", None])
async def test_every_effort_is_understood(
    server: ModelServer, provider: Provider, effort: str | None
) -> None:
    heard = await one(server, provider, Answer(text="Yes."), effort=effort)
    assert heard.text == "Yes."


async def test_without_tools_none_are_sent(server: ModelServer, provider: Provider) -> None:
    await one(server, provider, Answer(text="Yes."), tools=())
    assert '"tools"' not in server.requests[0].body


async def test_calls_run_side_by_side_and_each_gets_its_own_answer(
    server: ModelServer, provider: Provider
) -> None:
    server.scripts["*"] = Script(
        answers_to={f"<{n}>": [Answer(text=f"answer {n}")] for n in range(20)}
    )
    requests = [asked(provider, prompt(f"<{n}>")) for n in range(20)]
    heard = await asyncio.gather(*(hear(provider, request) for request in requests))
    assert [one.text for one in heard] == [f"answer {n}" for n in range(20)]


async def test_a_connection_is_kept_for_the_next_call(
    server: ModelServer, provider: Provider
) -> None:
    for _ in range(3):
        await one(server, provider, Answer(text="Yes."))
    assert server.connections_made == 1


async def test_a_kept_connection_that_the_server_closed_is_replaced(
    server: ModelServer, provider: Provider
) -> None:
    await one(server, provider, Answer(text="Yes."))
    for connection in list(server.open_connections):
        connection.hang_up()
    heard = await one(server, provider, Answer(text="Yes again."))
    assert heard.text == "Yes again."


async def test_leaving_early_closes_the_connection(server: ModelServer, provider: Provider) -> None:
    server.scripts["*"] = Script(answers=[Answer(tokens=100_000, fault=Fault(stall_at=5000))])
    stream = provider.stream(asked(provider, prompt()))
    assert isinstance(await anext(stream), Delta)
    await stream.aclose()
    await server.until(lambda: not server.open_connections)


async def test_a_cancelled_call_ends_at_once_while_the_model_is_silent(
    server: ModelServer, provider: Provider
) -> None:
    server.scripts["*"] = Script(answers=[Answer(text="a b c d e f", fault=Fault(stall_at=1))])
    call = asyncio.create_task(hear(provider, asked(provider, prompt())))
    await server.until(lambda: server.requests)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.until(lambda: not server.open_connections)


async def test_a_kept_connection_that_dies_under_a_call_is_replaced(
    server: ModelServer, provider: Provider
) -> None:
    await one(server, provider, Answer(text="Yes."))
    heard = await one(server, provider, Answer(text="Yes.", fault=Fault(hang_up=True, times=1)))
    assert heard.text == "Yes."
    assert len(server.requests) == 3


class Last(Script, frozen=True, kw_only=True):
    """Hangs up on whoever asks, and takes no more connections."""

    refuse: Callable[[], None]

    def answer(self, prompt: str, step: int) -> Answer:
        self.refuse()
        return Answer(fault=Fault(hang_up=True))


async def test_a_call_that_may_have_arrived_over_a_kept_connection_counts_as_sent(
    server: ModelServer, provider: Provider
) -> None:
    await one(server, provider, Answer(text="Yes."))
    server.scripts["*"] = Last(refuse=server.refuse)
    heard = await hear(provider, asked(provider, prompt()))
    assert len(server.requests) == 2
    assert heard.error is not None
    assert (heard.error.code, heard.error.unsent) == ("model_unreachable", False)


async def test_a_key_that_is_not_taken_is_told_and_not_shown(wire: WireName) -> None:
    async with ModelServer({"*": Script()}, keys=["another"]) as server:
        provider = provider_for(server, wire, key="sk-secret-and-revoked")
        heard = await hear(provider, asked(provider, prompt()))
        await provider.close()
    assert heard.error is not None
    assert heard.error.code == "model_unauthorized"
    assert "sk-secret" not in f"{heard.error.message} {heard.error.details}"


async def test_a_model_that_is_not_there_is_told(server: ModelServer, provider: Provider) -> None:
    heard = await hear(provider, asked(provider, prompt()))
    assert heard.error is not None
    assert heard.error.code == "model_not_found"


async def test_a_history_that_does_not_fit_is_told(server: ModelServer, provider: Provider) -> None:
    server.scripts["*"] = Script(answers=[Answer(text="Yes.")], window=1000)
    heard = await hear(provider, asked(provider, prompt("x" * 5000)))
    assert heard.error is not None
    assert heard.error.code == "model_context_too_long"


def test_it_works_on_the_event_loop_that_the_server_runs_on(wire: WireName) -> None:
    async def call() -> str:
        async with ModelServer({"*": Script(answers=[Answer(text="Yes.")])}) as server:
            provider = provider_for(server, wire)
            first = await hear(provider, asked(provider, prompt()))
            second = await hear(provider, asked(provider, prompt()))
            await provider.close()
            assert server.connections_made == 1
            return first.text + second.text

    assert uvloop.run(call()) == "Yes.Yes."


async def test_closing_twice_is_harmless(provider: Provider) -> None:
    await provider.close()
    await provider.close()

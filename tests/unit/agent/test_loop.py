"""What a run says and does, step by step."""

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from tests.local import LocalBench, LocalOperations
from tests.record import Record, new_task
from tests.scripted import Answer, Event, Scripted, call, raw_call, says, thinks
from zene.agent.base import Limits
from zene.agent.loop import run
from zene.domain.errors import LeaseLost, ModelError, SandboxGone, ZeneError
from zene.domain.events import (
    ApprovalRequested,
    ItemStarted,
    StepFinished,
    StepRetry,
    TaskWaiting,
)
from zene.domain.messages import Block, Item, Reasoning, SystemText, ToolCall, Usage
from zene.domain.situation import Grant, Granted, Refused
from zene.llm.base import CallStarted, Delta, Done, ModelInfo, PartDone, Retrying
from zene.tools import TOOLS
from zene.tools.base import Context, Tool
from zene.tools.shell import Arguments as Shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIST = call("list_files")


class World:
    """A session with an empty workspace and a scripted model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = Record()
        self.ops = LocalOperations(LocalBench(root))
        self.tools: Sequence[Tool[Any]] = TOOLS
        self.limits = Limits()
        self.info = ModelInfo(name="scripted", window=128_000, output_cap=1000)
        self.model = Scripted()

    async def tell(self, *answers: Answer, is_slow: bool = False) -> Record:
        """Run until the task ends or waits."""
        pause = self.ops.pass_time if is_slow else None
        self.model = Scripted(*answers, info=self.info, after_delta=pause)
        loop = run(
            self.record.situation(),
            model=self.model,
            tools=self.tools,
            ops=self.ops,
            limits=self.limits,
        )
        async with aclosing(loop):
            grant = None
            while self.record.end is None:
                grant = self.record.commit(await loop.asend(grant))
        return self.record

    def result(self, name: str) -> tuple[str, str]:
        """Status and output of the last call of that tool."""
        results = [call.result for call in self.record.calls.values() if call.name == name]
        assert results[-1] is not None
        return results[-1].status, results[-1].output


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_task_begins_with_the_system_text_and_the_prompt(world: World) -> None:
    (world.root / "CLAUDE.md").write_text("Use tabs.")
    await world.tell(says("Done."))
    system, prompt = (item.content for item in world.model.requests[0].items)
    assert isinstance(system, SystemText)
    assert system.text.endswith("The project's own rules, from CLAUDE.md:\n\nUse tabs.")
    assert prompt.text == "Mend it."  # type: ignore[union-attr] # a UserMessage
    assert [b.text for b in world.record.completed("user_message")] == ["Mend it."]


async def test_a_later_task_keeps_the_prefix_unless_the_rules_have_changed(world: World) -> None:
    await world.tell(says("Done."))
    first = world.model.requests[0].items
    world.record.task = new_task("And now?", id="tsk_2")
    world.record.end = None
    await world.tell(says("Done again."))
    assert list(world.model.requests[0].items[: len(first)]) == list(first)
    (world.root / "AGENTS.md").write_text("Use spaces.")
    world.record.task = new_task("And then?", id="tsk_3")
    world.record.end = None
    await world.tell(says("Done."))
    system = world.model.requests[0].items[0].content
    assert isinstance(system, SystemText)
    assert system.text.endswith("Use spaces.")


async def test_one_call_costs_two_commits_and_an_answer_one(world: World) -> None:
    await world.tell(says("I look.", LIST), says("Done."))
    kinds = [[type(d.body).__name__ for d in batch.drafts] for batch in world.record.batches]
    assert [names[-1] for names in kinds] == [
        "StepStarted",
        "StepFinished",
        "StepStarted",
        "TaskFinished",
    ]
    assert [len(batch.intents) for batch in world.record.batches] == [0, 1, 0, 0]


async def test_text_that_takes_time_is_shown_while_it_comes(world: World) -> None:
    text = "Grüße 👋🏽 from the model, in small pieces."
    record = await world.tell(says(thinks("First I think.", "s"), text), is_slow=True)
    message = record.completed("message")[0]
    assert world.ops.shown[message.item_id] == message.text == text
    started = [b for b in record.of(ItemStarted) if isinstance(b, ItemStarted)]
    assert [body.kind for body in started][-2:] == ["reasoning", "message"]
    assert len(record.batches) == 4


async def test_text_that_comes_at_once_is_not_streamed(world: World) -> None:
    record = await world.tell(says("All at once."))
    assert world.ops.shown == {}
    assert len(record.batches) == 2


async def test_text_after_a_call_waits_for_it_so_that_the_order_stays(world: World) -> None:
    record = await world.tell(says("Before.", LIST, "And after."), says("Done."), is_slow=True)
    started = [b.kind for b in record.of(ItemStarted) if isinstance(b, ItemStarted)]
    assert started == ["notice", "user_message", "message", "tool_call", "message", "message"]


async def test_reading_calls_run_side_by_side_and_others_in_their_order(world: World) -> None:
    write = call("write_file", path="a", content="a")
    record = await world.tell(
        says(LIST, call("find_files", pattern="*"), write, call("read_file", path="a")),
        says("Done."),
    )
    ids = list(record.calls)
    assert world.ops.side_by_side == [frozenset(ids[:2])]
    intents = [batch.intents for batch in record.batches if batch.intents]
    assert intents == [ids[:2], ids[2:3], ids[3:]]
    assert world.result("read_file") == ("succeeded", "a")


async def test_names_and_ids_that_providers_refuse_are_mended(world: World) -> None:
    block = Block(wire="scripted", data=Raw(b"{}"))
    strange = ToolCall(call_id="", name='../"x"', arguments="{}", block=block)
    twice = call("list_files", call_id="same")
    record = await world.tell(says(strange, twice, twice), says("Done."))
    calls = list(record.calls.values())
    assert calls[0].name == "____x_"
    assert calls[0].block is None
    assert len({call.call_id for call in calls}) == 3


async def test_an_id_that_an_earlier_answer_used_is_not_used_again(world: World) -> None:
    """Small servers count from zero in each answer; Messages refuses a history with an id twice."""
    same = call("list_files", call_id="call_0")
    record = await world.tell(says(same), says(same), says("Done."))
    first, second = record.calls.values()
    assert first.call_id == "call_0"
    assert second.call_id not in ("", "call_0")


async def test_more_than_64_calls_are_cut(world: World) -> None:
    many = [call("list_files", call_id=f"c{number}") for number in range(100)]
    record = await world.tell(says(*many), says("Done."))
    assert len(record.calls) == 64


async def test_a_call_cut_at_the_token_limit_is_not_run(world: World) -> None:
    write = call("write_file", path="a", content="half")
    record = await world.tell(says(LIST, write, stop="length"), says("Done."))
    assert world.result("list_files")[0] == "succeeded"
    assert "cut off at its token limit" in world.result("write_file")[1]
    assert not (world.root / "a").exists()
    assert record.finished.outcome == "succeeded"


async def test_an_answer_cut_at_the_token_limit_fails_the_task(world: World) -> None:
    record = await world.tell(says("Once upon a", stop="length"))
    assert error_code(record) == "model_output_cut"


async def test_an_answer_cut_because_few_tokens_were_left_exhausts_the_budget(world: World) -> None:
    world.record.grant = lambda _: Granted(999)
    record = await world.tell(says("Once upon a", stop="length"))
    assert record.finished.outcome == "budget_exhausted"


async def test_a_refusal_fails_the_task_and_runs_nothing(world: World) -> None:
    record = await world.tell(says("I will not.", LIST, stop="refusal"))
    assert error_code(record) == "model_refusal"
    assert record.calls == {}
    assert [body.text for body in record.completed("message")] == ["I will not."]


@pytest.mark.parametrize("is_slow", [True, False])
async def test_an_answer_that_breaks_off_stays_visible_and_out_of_the_history(
    world: World, *, is_slow: bool
) -> None:
    whole = says("This is what I", LIST)
    cut = [*whole[:3], ModelError("Cut.", code="model_interrupted", retryable=True)]
    record = await world.tell(cut, is_slow=is_slow)
    assert [(b.status, b.text) for b in record.completed("message")] == [
        ("discarded", "This is what I")
    ]
    assert record.open == {}
    assert error_code(record) == "model_interrupted"
    assert record.finished.error is not None
    assert record.finished.error.retryable
    assert record.finished.usage.estimated
    assert record.finished.usage.output_tokens == 16_384


@pytest.mark.parametrize("code", ["model_unauthorized", "model_overloaded", "model_rejected"])
async def test_a_model_that_says_no_costs_nothing(world: World, code: str) -> None:
    record = await world.tell([ModelError("No.", code=code)])
    assert error_code(record) == code
    assert record.finished.usage == Usage()


async def test_an_answer_without_an_end_fails_the_task(world: World) -> None:
    record = await world.tell([Delta(0, "message", "Hm")])
    assert error_code(record) == "model_interrupted"


async def test_retries_are_events(world: World) -> None:
    record = await world.tell([Retrying(1, 500, "429"), *says("Done.")])
    assert record.of(StepRetry) == [StepRetry(attempt=1, delay_ms=500, reason="429")]


async def test_missing_usage_is_charged_at_the_reservation(world: World) -> None:
    record = await world.tell(says("Done.", usage=None))
    usage = record.finished.usage
    assert usage == Usage(
        input_tokens=record.batches[0].reserve or 0, output_tokens=16_384, estimated=True
    )


async def test_a_call_that_never_reached_the_provider_costs_nothing(world: World) -> None:
    record = await world.tell([ModelError("no", code="model_unreachable", unsent=True)])
    assert error_code(record) == "model_unreachable"
    assert record.finished.usage == Usage()


async def test_the_bound_is_what_was_counted_and_the_bytes_added_since(world: World) -> None:
    await world.tell(says(LIST, usage=Usage(input_tokens=500, output_tokens=5)), says("Done."))
    first, second = (batch.reserve for batch in world.record.batches if batch.reserve)
    assert first > len(world.model.requests[0].items[0].content.text)  # type: ignore[union-attr] # SystemText
    assert 500 < second < 1000


async def test_the_bound_is_never_more_than_the_window(world: World) -> None:
    world.info = ModelInfo(name="scripted", window=700)
    record = await world.tell(says("Done."))
    assert record.batches[0].reserve == 700


async def test_without_tokens_the_task_ends_and_its_work_is_kept(world: World) -> None:
    grants: Iterator[Grant] = iter([Granted(1000), Refused("exhausted")])
    world.record.grant = lambda _: next(grants)
    record = await world.tell(says(call("write_file", path="a", content="a")))
    assert record.finished.outcome == "budget_exhausted"
    assert world.result("write_file")[0] == "succeeded"
    assert record.open == {}


async def test_while_others_hold_the_tokens_the_task_waits(world: World) -> None:
    world.record.grant = lambda _: Refused("wait")
    record = await world.tell()
    assert record.end == TaskWaiting(on="quota")
    record.resume()
    record.grant = lambda _: Granted(1000)
    assert (await world.tell(says("Done."))).finished.outcome == "succeeded"


async def test_a_task_ends_after_its_steps(world: World) -> None:
    world.limits = Limits(steps=3)
    answers = [says(call("shell", command=f"echo {number}")) for number in range(3)]
    assert error_code(await world.tell(*answers)) == "step_limit"


async def test_a_task_ends_when_its_time_is_used_up_and_starts_nothing_new(world: World) -> None:
    world.limits = Limits(deadline_ms=world.ops.clock_ms + 1000)

    def late() -> None:
        world.ops.pass_time(1000)

    record = await world.tell(
        [*says(call("write_file", path="a", content="a"))[:-1], late, says()[-1]]
    )
    assert record.finished.outcome == "timed_out"
    assert record.open == {}
    assert not (world.root / "a").exists()


async def test_the_same_call_with_the_same_result_five_times_is_a_loop(world: World) -> None:
    record = await world.tell(*[says(LIST)] * 5)
    assert error_code(record) == "loop_detected"


@pytest.mark.parametrize(
    "commands", [["sleep 0; echo no"] * 7, ["date +%N"] * 7, ["true", "false"] * 4]
)
async def test_waiting_for_something_is_not_a_loop(world: World, commands: list[str]) -> None:
    steps = [says(call("shell", command=command)) for command in commands]
    assert (await world.tell(*steps, says("Done."))).finished.outcome == "succeeded"


async def test_a_history_that_is_too_long_is_summed_up_once_and_then_fails(world: World) -> None:
    too_long = [ModelError("Too long.", code="model_context_too_long")]
    record = await world.tell(says(LIST), too_long, says("The summary."), too_long)
    assert error_code(record) == "model_context_too_long"
    assert len(record.completed("compaction")) == 1
    assert len(world.model.requests) == 4


async def test_a_prompt_that_is_too_long_by_itself_fails_at_once(world: World) -> None:
    record = await world.tell([ModelError("Too long.", code="model_context_too_long")])
    assert error_code(record) == "model_context_too_long"


@pytest.mark.parametrize("error", [LeaseLost("Old epoch.")])
async def test_a_lost_lease_ends_the_run_without_a_word(world: World, error: ZeneError) -> None:
    world.tools = [failing(error)]
    with pytest.raises(LeaseLost):
        await world.tell(says(call("shell", command="x")))


async def test_a_call_whose_sandbox_ended_under_it_is_marked_interrupted(world: World) -> None:
    world.tools = [failing(SandboxGone("It was killed."))]
    await world.tell(says(call("shell", command="x")), says("Done."))
    status, output = world.result("shell")
    assert status == "interrupted"
    assert "may have run" in output


async def test_leaving_the_run_in_the_middle_of_an_answer_closes_the_connection(
    world: World,
) -> None:
    world.model = Scripted(says("A long answer that is left."), after_delta=world.ops.pass_time)
    loop = run(world.record.situation(), model=world.model, tools=TOOLS, ops=world.ops)
    async with aclosing(loop):
        grant = world.record.commit(await loop.asend(None))
        await loop.asend(grant)
    assert world.model.closed_early == 1


async def test_leaving_the_run_while_calls_run_side_by_side_stops_them(world: World) -> None:
    world.model = Scripted(says(LIST, call("find_files", pattern="*")))
    loop = run(world.record.situation(), model=world.model, tools=TOOLS, ops=world.ops)
    async with aclosing(loop):
        grant = world.record.commit(await loop.asend(None))
        world.record.commit(await loop.asend(grant))
        world.record.commit(await loop.asend(None))
    assert len(world.ops.side_by_side) == 1  # conftest checks that no coroutine is left


async def test_sealed_reasoning_without_text_is_kept_and_an_empty_message_is_not(
    world: World,
) -> None:
    sealed = Reasoning("", block=Block(wire="scripted", data=Raw(b'{"sealed":1}')))
    record = await world.tell(says(sealed, "", LIST), says("Done."))
    assert len(record.completed("reasoning")) == 1
    assert len(record.completed("message")) == 1
    assert sealed in [item.content for item in world.model.requests[1].items]


async def test_every_usage_is_added_up(world: World) -> None:
    used = Usage(input_tokens=100, output_tokens=10, cached_tokens=80, reasoning_tokens=4)
    record = await world.tell(says(LIST, usage=used), says("Done.", usage=used))
    assert record.finished.usage == used + used
    steps = [body.stop_reason for body in record.of(StepFinished) if isinstance(body, StepFinished)]
    assert steps == ["tool_calls", "end"]


async def test_a_call_part_that_never_became_whole_is_no_item(world: World) -> None:
    answer: list[Event] = [
        CallStarted(0, "c", "shell"),
        Delta(0, "arguments", '{"command'),
        PartDone(1, LIST),
        Done(stop_reason="tool_calls", usage=None),
    ]
    record = await world.tell(answer, says("Done."))
    assert [call.name for call in record.calls.values()] == ["list_files"]


async def test_approvals_show_what_would_be_executed(world: World) -> None:
    world.record.policy = "ask_for_writes"
    hidden = '{"command": "ls", "command": "rm -rf /\\r\\u202e%s ls"}' % (" " * 5000)
    record = await world.tell(says(raw_call("shell", hidden)))
    asked = record.of(ApprovalRequested)[0]
    assert isinstance(asked, ApprovalRequested)
    assert asked.risk == "high"
    assert 'command="rm -rf /\\u{d}\\u{202e}⟨0x20 times 5001⟩ls"' in asked.summary
    assert record.approvals[asked.item_id].arguments_hash in asked.summary
    assert asked.expires_at == "2027-01-22T08:00:00.000Z"


async def test_a_decision_on_other_arguments_allows_nothing(world: World) -> None:
    world.record.policy = "ask_always"
    record = await world.tell(says(LIST))
    record.decide("allowed")
    (item_id, approval), *_ = record.approvals.items()
    record.approvals[item_id] = type(approval)(
        **{name: getattr(approval, name) for name in approval.__struct_fields__}
        | {"arguments_hash": "0" * 64}
    )
    await world.tell(says("A pity."))
    assert world.result("list_files")[0] == "denied"


async def test_a_rule_of_the_session_needs_no_decision(world: World) -> None:
    world.record.policy = "ask_always"
    world.record.rules = {"list_files"}
    record = await world.tell(says(LIST), says("Done."))
    assert record.finished.outcome == "succeeded"
    assert record.of(ApprovalRequested) == []


def error_code(record: Record) -> str:
    assert record.finished.outcome == "failed"
    assert record.finished.error is not None
    return record.finished.error.code


def failing(error: ZeneError) -> Tool[Any]:
    async def fail(arguments: Shell, context: Context) -> Any:
        raise error

    return Tool(name="shell", description="", arguments=Shell, run=fail, read_only=False)


async def test_a_call_that_an_earlier_task_left_open_is_closed_and_not_run(world: World) -> None:
    await world.tell(says("Done."))
    record = world.record
    record.open["itm_old"] = "command"
    left = call("shell", command="touch ran")
    record.items["itm_old"] = Item(id="itm_old", task_id="tsk_1", step=1, content=left)
    record.task = new_task("And now?", id="tsk_2")
    record.end = None
    await world.tell(says("Done."))
    assert world.result("shell")[0] == "interrupted"
    assert not (world.root / "ran").exists()
    old = record.items["itm_old"]
    assert old is not None
    assert isinstance(old.content, ToolCall)


async def test_costs_are_added_up_where_the_model_has_prices(world: World) -> None:
    world.info = ModelInfo(name="scripted", window=128_000, input_price=1.0, output_price=10.0)
    used = Usage(input_tokens=1000, output_tokens=100)
    record = await world.tell(says(LIST, usage=used), says("Done.", usage=used))
    assert record.finished.cost == pytest.approx(0.004)

"""What a summary stands for, what stands beside it, and what becomes of a history that fits nowhere."""

from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from tests.local import LocalBench, LocalOperations
from tests.record import Record, new_task
from tests.scripted import Answer, Event, Scripted, call, says
from zene.agent.compaction import INSTRUCTION, SAID_LIMIT
from zene.agent.loop import run
from zene.domain.errors import ModelError
from zene.domain.events import StepFinished
from zene.domain.messages import Compaction, SystemText, ToolCall, Usage, UserMessage
from zene.llm.base import Done, ModelInfo, Retrying
from zene.tools import TOOLS

FULL = Usage(input_tokens=9000, output_tokens=9)
WORK = says(
    call("write_file", path="b.txt", content="b"),
    call("write_file", path="a.txt", content="a"),
    call("edit_file", path="b.txt", old_text="nothing", new_text="x"),
    call("plan", entries=[{"text": "mend", "status": "in_progress"}]),
    usage=FULL,
)
TOO_LONG = [ModelError("Too long.", code="model_context_too_long")]
SILENT: list[list[Event]] = [says("  "), [Done(stop_reason="end", usage=None)], []]
SMALL = Usage(input_tokens=1, output_tokens=1)
PLAN = {"entries": [{"text": "mend", "status": "in_progress"}]}


class World:
    def __init__(self, root: Path) -> None:
        self.bench = LocalBench(root)
        self.record = Record(new_task("Mend the thing."))
        self.model = Scripted()
        self.can_compare = True

    def hear(self, *texts: str) -> Answer:
        """An answer during which the user says something."""
        said = {f"itm_{text[:9]}": text for text in texts}
        look = says(call("list_files"), usage=SMALL)
        return [lambda: self.record.unheard.update(said), *look]

    async def tell(self, *answers: Answer, window: int = 10_000) -> Record:
        info = ModelInfo(name="scripted", window=window, output_cap=1000)
        self.model = Scripted(*answers, info=info)
        ops = LocalOperations(self.bench)
        ops._ids = len(self.record.items)
        ops.unheard = self.record.unheard
        ops.can_compare = self.can_compare
        loop = run(self.record.situation(), model=self.model, tools=TOOLS, ops=ops)
        async with aclosing(loop):
            grant = None
            while self.record.end is None:
                grant = self.record.commit(await loop.asend(grant))
        return self.record

    @property
    def compactions(self) -> list[Compaction]:
        contents = (item.content for item in self.record.items.values() if item)
        return [content for content in contents if isinstance(content, Compaction)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_request_the_plan_and_the_changed_files_stand_beside_the_summary(
    world: World,
) -> None:
    await world.tell(WORK, says("The summary."), says("Done."))
    (compaction,) = world.compactions
    assert compaction.summary == "The summary."
    assert msgspec.json.decode(compaction.restated) == {
        "request": "Mend the thing.",
        "plan": PLAN,
        "changed_files": ["a.txt", "b.txt"],
    }
    asked, after = world.model.requests[1:]
    assert asked.items[-1].content == UserMessage(INSTRUCTION)
    assert list(asked.items[:2]) == list(world.model.requests[0].items)
    assert [type(item.content) for item in after.items] == [SystemText, Compaction]
    assert after.items[0].content == asked.items[0].content
    assert [body.text for body in world.record.completed("compaction")] == ["The summary."]


async def test_a_second_summary_keeps_what_stood_beside_the_first(world: World) -> None:
    more = says(call("write_file", path="c.txt", content="c"), usage=FULL)
    await world.tell(WORK, says("First."), more, says("Second."), says("Done."))
    restated = msgspec.json.decode(world.compactions[-1].restated)
    assert restated["changed_files"] == ["a.txt", "b.txt", "c.txt"]
    assert restated["plan"] == PLAN


async def test_what_the_user_said_later_stands_beside_every_summary(world: World) -> None:
    more = says(call("write_file", path="c.txt", content="c"), usage=FULL)
    first, last = world.hear("Be brief.", "And kind."), world.hear("Stop soon.")
    await world.tell(first, WORK, says("First."), last, more, says("Second."), says("Done."))
    said = [msgspec.json.decode(each.restated)["said_later"] for each in world.compactions]
    assert said == [["Be brief.", "And kind."], ["Be brief.", "And kind.", "Stop soon."]]


async def test_of_very_much_that_the_user_said_the_latest_stands(world: World) -> None:
    long, short = "x" * SAID_LIMIT, "Be brief."
    full = says(call("list_files"), usage=Usage(input_tokens=39_000, output_tokens=9))
    await world.tell(world.hear(long, short), full, says("First."), says("Done."), window=40_000)
    assert msgspec.json.decode(world.compactions[0].restated)["said_later"] == [short]


async def test_files_that_a_command_changed_stand_beside_the_summary(world: World) -> None:
    (world.bench.root / "old.txt").write_text("old")
    (world.bench.root / "same.txt").write_text("same")
    world.bench = LocalBench(world.bench.root)
    work = says(call("shell", command="rm old.txt; echo new > new.txt"), usage=FULL)
    await world.tell(work, says("The summary."), says("Done."))
    restated = msgspec.json.decode(world.compactions[-1].restated)
    assert restated["changed_files"] == ["new.txt", "old.txt"]


async def test_where_files_cannot_be_compared_the_calls_tell_which_were_changed(
    world: World,
) -> None:
    world.can_compare = False
    more = says(call("write_file", path="c.txt", content="c"), usage=FULL)
    await world.tell(WORK, says("First."), more, says("Second."), says("Done."))
    restated = msgspec.json.decode(world.compactions[-1].restated)
    assert restated["changed_files"] == ["b.txt", "a.txt", "c.txt"]


async def test_very_many_changed_files_are_counted_rather_than_named(world: World) -> None:
    work = says(call("shell", command="touch $(seq -f %0100g 200)"), usage=FULL)
    await world.tell(work, says("The summary."), says("Done."))
    restated = msgspec.json.decode(world.compactions[-1].restated)
    assert restated["changed_files"] == [f"{n:0100}" for n in range(1, 81)]
    assert restated["more_changed_files"] == 120


async def test_a_summary_is_reserved_settled_and_counted_as_a_step(world: World) -> None:
    record = await world.tell(WORK, says("The summary.", usage=FULL), says("Done.", usage=FULL))
    steps = [body.usage for body in record.of(StepFinished) if isinstance(body, StepFinished)]
    assert steps == [FULL] * 3
    assert len([batch for batch in record.batches if batch.reserve]) == 3
    assert record.finished.usage == FULL + FULL + FULL


async def test_calls_in_an_answer_that_should_be_a_summary_are_not_run(world: World) -> None:
    sneaky = says("The summary.", call("shell", command="touch ran"))
    record = await world.tell(WORK, sneaky, says("Done."))
    assert not (world.bench.root / "ran").exists()
    assert record.finished.outcome == "succeeded"


@pytest.mark.parametrize("answer", SILENT)
async def test_without_a_summary_the_task_fails(world: World, answer: list[Event]) -> None:
    record = await world.tell(WORK, answer)
    assert record.finished.error is not None
    assert record.finished.error.code == "compaction_failed"


async def test_a_retry_of_the_summary_is_an_event_and_its_failure_ends_the_task(
    world: World,
) -> None:
    answer: list[Event] = [Retrying(1, 5, "overloaded"), ModelError("No.", code="model_overloaded")]
    record = await world.tell(WORK, answer)
    assert record.finished.error is not None
    assert record.finished.error.code == "model_overloaded"


async def test_a_history_that_fits_nowhere_is_cut_for_its_summary_and_tried_once(
    world: World,
) -> None:
    loud = [says(call("shell", command=f"seq {n} 9999"), usage=None) for n in range(4)]
    record = await world.tell(*loud, TOO_LONG, TOO_LONG, window=60_000)
    assert record.finished.error is not None
    assert record.finished.error.code == "model_context_too_long"
    cut = world.model.requests[-1].items
    assert len(msgspec.json.encode(cut)) < len(msgspec.json.encode(record.situation().items)) / 5
    assert len(world.model.requests) == 6


async def test_the_oldest_answers_are_left_out_where_cutting_is_not_enough(world: World) -> None:
    steps = [says(f"{n} " + "x" * 1500, call("plan", entries=[]), usage=SMALL) for n in range(4)]
    await world.tell(*steps, TOO_LONG, says("The summary."), says("Done."), window=6000)
    cut = world.model.requests[5].items
    assert [type(item.content) for item in cut[:2]] == [SystemText, UserMessage]
    calls = [item.content for item in cut if isinstance(item.content, ToolCall)]
    assert 0 < len(calls) < 4


async def test_what_was_summed_up_is_not_shown_again_to_a_later_task(world: World) -> None:
    await world.tell(WORK, says("The summary."), says("Done."))
    world.record.task = new_task("And now?", id="tsk_2")
    world.record.end = None
    await world.tell(says("Done."), window=100_000)
    names = [type(item.content).__name__ for item in world.model.requests[0].items]
    assert names == ["SystemText", "Compaction", "Message", "UserMessage"]

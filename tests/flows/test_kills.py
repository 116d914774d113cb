"""A server that is killed at the worst moments: what was accepted is done, and nothing twice."""

import json
from collections.abc import Callable, Sequence

import pytest
from msgspec import Struct

from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.servers import RESUMED_SECONDS, Zene, begin, says
from zene.domain.closing import INTERRUPTED
from zene.domain.events import Event

SLOW = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 0.3"})
FOR_EVER = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun; sleep 600"})
WORDS = "one two three four five six seven eight nine ten " * 4


def stalls(text: str, after: int, calls: Sequence[Call] = ()) -> Answer:
    """A slow answer that falls silent after so many bytes, the first time it is asked for."""
    return Answer(text=text, calls=calls, delay_ms=20, fault=Fault(times=1, stall_at=after))


async def test_a_task_that_was_accepted_outlives_a_kill_right_after(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(text="Done.")])
    for _ in range(3):
        log, task = await begin(zene)
        await zene.restart()
        assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
        await log.check()


class Moment(Struct, frozen=True):
    """When the server is killed: at an event, or where there is none, when the model is asked."""

    answers: Sequence[Answer]
    event: Callable[[Event], bool] | None = None


MOMENTS = {
    "the model is asked": Moment([stalls("", 0, [SLOW]), Answer(text="Done.")]),
    "a step has begun": Moment([Answer(calls=[SLOW], delay_ms=20)], says("step.started")),
    "the answer is streamed": Moment(
        [stalls(WORDS, 2000, [SLOW])], says("item.delta", kind="message", text="one")
    ),
    "a call has begun": Moment([Answer(calls=[SLOW])], says("item.started", name="shell")),
    "a call is running": Moment(
        [Answer(calls=[SLOW])], says("item.delta", kind="command", text="begun")
    ),
    "a call has ended": Moment([Answer(calls=[SLOW])], says("item.completed", name="shell")),
    "the last answer is almost whole": Moment(
        [Answer(calls=[SLOW]), stalls(WORDS, 8500)], says("item.delta", kind="message", text="one")
    ),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_a_task_goes_on_after_a_kill_when(
    zene: Zene, model: ModelServer, moment: Moment
) -> None:
    model.scripts["*"] = Script(answers=moment.answers)
    log, task = await begin(zene)
    if moment.event is None:
        await model.until(lambda: model.requests)
    else:
        await log.live(moment.event)
    await zene.restart()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
    await log.check()
    await log.ran_once()
    assert len(log.of("step.started")) >= len(model.requests), "a request without a reservation"
    assert len(log.of("task.started")) == 2


async def test_a_command_that_a_kill_interrupts_is_marked_told_to_the_model_and_not_repeated(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER]), Answer(text="I see.")])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    await zene.restart()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
    await log.check()
    [call] = log.calls()
    assert (call["status"], call["output"]) == ("interrupted", INTERRUPTED)
    assert await log.client.read_file(log.session_id, "log.txt") == b"x\n"
    told = json.loads(model.requests[-1].body)["messages"][-1]
    assert (told["role"], told["content"]) == ("tool", INTERRUPTED)


async def test_what_a_follower_saw_before_a_kill_is_in_the_log_after_it(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SLOW]), Answer(text="Done.")])
    for kind in ("task.started", "step.started", "item.completed"):
        log, task = await begin(zene)
        seen: list[Event] = []
        await log.live(noted(seen, kind))
        await zene.restart()
        assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
        await log.check()
        known = {event.seq: event for event in log.events}
        for event in seen:
            if event.type != "item.delta":
                assert event == known.get(event.seq)


def noted(seen: list[Event], kind: str) -> Callable[[Event], bool]:
    """Note every event, up to the first of that type."""

    def is_it(event: Event) -> bool:
        seen.append(event)
        return event.type == kind

    return is_it


async def test_half_an_answer_is_discarded_charged_and_asked_for_again(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[stalls(WORDS, 2000)])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="message", text="one"))
    await zene.restart()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
    await log.check()
    half, whole = [one for one in log.of("item.completed") if one["kind"] == "message"]
    assert (half["status"], whole["status"], whole["text"]) == ("discarded", "completed", WORDS)
    lost, counted = log.of("step.finished")
    assert (lost["stop_reason"], lost["usage"]["estimated"]) == ("interrupted", True)
    assert lost["usage"]["output_tokens"] > counted["usage"]["output_tokens"]
    used = (await log.client.task(task)).usage
    assert used.estimated
    assert used.input_tokens == lost["usage"]["input_tokens"] + counted["usage"]["input_tokens"]
    first, again = (json.loads(each.body)["messages"] for each in model.requests)
    assert first == again


async def test_a_task_that_ends_three_servers_in_a_row_is_not_tried_again(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(text=WORDS, fault=Fault(stall_at=2000))])
    log, task = await begin(zene)
    for kill in range(1, 4):
        await model.until(lambda: len(model.requests) == kill)  # noqa: B023 - called at once
        await zene.restart()
    end = await log.finished(task, RESUMED_SECONDS)
    assert (end["outcome"], end["error"]["code"]) == ("failed", "poison")
    await log.check()


async def test_tasks_of_many_sessions_all_go_on(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SLOW]), Answer(text=WORDS, delay_ms=5)])
    begun = [await begin(zene) for _ in range(8)]
    await model.until(lambda: len(model.requests) >= 6)
    await zene.restart()
    for log, task in begun:
        assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
        await log.check()
        await log.ran_once()

"""News cost no commit of their own, and each is said by the run whose it is."""

from msgspec.structs import replace

from tests.record import new_task
from zene.agent.base import Batch
from zene.domain.events import (
    Body,
    Draft,
    ItemStarted,
    SandboxState,
    StepFinished,
    TaskFinished,
    TaskPhase,
    UsageUpdated,
)
from zene.domain.messages import Usage
from zene.worker.asides import Asides

GONE = SandboxState(state="gone", reason="ended")
STEP = StepFinished(stop_reason="end", usage=Usage(input_tokens=10), cost=0.5)
END = TaskFinished(outcome="succeeded", usage=Usage())


def batch(*bodies: Body) -> Batch:
    return Batch(drafts=[Draft(body=body) for body in bodies])


def begins(name: str | None) -> Batch:
    return batch(ItemStarted(item_id="itm_1", kind="tool_call" if name else "message", name=name))


def test_news_come_before_the_next_batch_and_once() -> None:
    asides = Asides(new_task())
    asides.listen([GONE])
    first, second = asides.with_news(batch(STEP)), asides.with_news(batch(STEP))
    assert [draft.body for draft in first] == [GONE, STEP]
    assert [draft.body for draft in second] == [STEP]


def test_a_phase_that_came_after_a_tasks_end_is_not_the_next_ones() -> None:
    news: list[Body] = []
    before = Asides(new_task())
    before.listen(news)
    before.phase("ready")
    news.append(GONE)
    after = Asides(new_task())
    after.listen(news)
    after.phase("preparing")
    told = [draft.body for draft in after.with_news(batch())]
    assert told[0] == GONE
    assert [body.phase for body in told[1:] if isinstance(body, TaskPhase)] == ["preparing"]


def test_usage_goes_on_from_what_earlier_runs_used_and_is_left_to_the_end() -> None:
    asides = Asides(replace(new_task(), usage=Usage(input_tokens=5), cost=None))
    assert asides.usage(begins("shell")) is None
    draft = asides.usage(batch(STEP))
    assert draft is not None
    assert draft.body == UsageUpdated(usage=Usage(input_tokens=15), cost=0.5)
    assert asides.usage(batch(STEP, END)) is None


def test_only_a_call_that_may_change_a_file_is_reason_to_look() -> None:
    asides = Asides(new_task())
    for name in ("read_file", "search_files", "plan", None):
        asides.with_news(begins(name))
    assert asides.changed_since_ms is None
    asides.with_news(begins("shell"))
    assert asides.changed_since_ms is not None


def test_a_task_that_went_on_after_an_earlier_run_is_looked_at_from_its_start() -> None:
    assert Asides(replace(new_task(), steps=1, started_at=7)).changed_since_ms == 7
    assert Asides(replace(new_task(), steps=0, started_at=7)).changed_since_ms is None

"""A model that says something and then falls silent: what it said is seen, and nothing is left behind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.local import LocalBench, LocalOperations
from tests.record import Record
from tests.scripted import USAGE
from zene.agent.base import Batch
from zene.agent.loop import run
from zene.domain.errors import ModelError
from zene.domain.events import ItemCompleted, ItemStarted
from zene.domain.messages import Message
from zene.llm.base import CallStarted, Delta, Done, ModelInfo, Output, PartDone, Request
from zene.tools import TOOLS

if TYPE_CHECKING:
    from zene.domain.situation import Grant


class Halting:
    """Says `first` in one go, and the rest when it is allowed to go on."""

    wire = "scripted"
    info = ModelInfo(name="scripted", window=128_000)

    def __init__(self, *first: Output, rest: list[Output | ModelError] | None = None) -> None:
        self.go_on = asyncio.Event()
        self.is_closed = False
        self.goes_on = asyncio.Event()
        self._first = first
        self._rest = rest or []

    async def stream(self, request: Request) -> AsyncGenerator[Output, None]:
        assert request.items
        try:
            for output in self._first:
                yield output
            await self.go_on.wait()
            self.goes_on.set()
            for rest in self._rest:
                if isinstance(rest, ModelError):
                    raise rest
                yield rest
        finally:
            self.is_closed = True

    async def close(self) -> None:
        return


class Run:
    """A loop on that model, driven batch by batch."""

    def __init__(self, root: Path, model: Halting) -> None:
        self.ops = LocalOperations(LocalBench(root))
        self.record = Record()
        self.loop = run(self.record.situation(), model=model, tools=TOOLS, ops=self.ops)
        self._grant: Grant | None = None

    async def batch(self) -> Batch:
        async with asyncio.timeout(10):
            batch = await self.loop.asend(self._grant)
        self._grant = self.record.commit(batch)
        return batch


WHOLE: list[Output | ModelError] = [
    Delta(0, "message", "three"),
    PartDone(0, Message("one two three")),
    Done(stop_reason="end", usage=USAGE),
]


async def test_a_burst_is_shown_though_nothing_comes_after_it(tmp_path: Path) -> None:
    model = Halting(Delta(0, "message", "one "), Delta(0, "message", "two "), rest=WHOLE)
    run = Run(tmp_path, model)
    async with aclosing(run.loop):
        await run.batch()  # the prompt, and the call of the model
        assert [type(draft.body) for draft in (await run.batch()).drafts] == [ItemStarted]
        assert not model.go_on.is_set()
        model.go_on.set()
        end = await run.batch()
    assert end.is_last
    assert list(run.ops.shown.values()) == ["one two three"]
    assert isinstance(end.drafts[0].body, ItemCompleted)


async def test_what_comes_while_the_start_is_committed_is_shown_after_it(tmp_path: Path) -> None:
    model = Halting(Delta(0, "message", "one two "), rest=WHOLE)
    run = Run(tmp_path, model)
    async with aclosing(run.loop):
        await run.batch()
        await run.batch()
        model.go_on.set()
        await model.goes_on.wait()  # the model says more before the store has answered
        await asyncio.sleep(0)
        assert run.ops.shown == {}, "nothing is shown of an item before it is known"
        await run.batch()
    assert list(run.ops.shown.values()) == ["one two three"]


async def test_an_answer_that_breaks_off_in_silence_is_discarded(tmp_path: Path) -> None:
    broken = ModelError("Gone.", code="model_interrupted")
    model = Halting(Delta(0, "message", "one "), rest=[broken])
    run = Run(tmp_path, model)
    async with aclosing(run.loop):
        await run.batch()
        await run.batch()
        model.go_on.set()
        end = await run.batch()
    assert [draft.body.status for draft in end.drafts if isinstance(draft.body, ItemCompleted)] == [
        "discarded"
    ]


async def test_text_before_a_call_is_shown_while_the_call_is_written(tmp_path: Path) -> None:
    model = Halting(Delta(0, "message", "I look."), CallStarted(1, "c", "list_files"))
    run = Run(tmp_path, model)
    async with aclosing(run.loop):
        await run.batch()
        [started] = (await run.batch()).drafts
        assert isinstance(started.body, ItemStarted)
        assert started.body.kind == "message", "a call is none before its arguments are whole"
    assert model.is_closed


@pytest.mark.parametrize("batches", [1, 2])
async def test_a_run_that_is_left_leaves_nobody_reading(tmp_path: Path, batches: int) -> None:
    model = Halting(Delta(0, "message", "one "))
    run = Run(tmp_path, model)
    async with aclosing(run.loop):
        for _ in range(batches):
            await run.batch()
        waiting = asyncio.create_task(run.batch())
        for _ in range(10):  # as far as it gets while the model is silent
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert model.is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}

"""What is sent: few bytes, and each request begins with the one before."""

import itertools
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.local import LocalBench, LocalOperations
from tests.record import Record, new_task
from tests.scripted import Scripted, call, says
from zene.agent.loop import run
from zene.llm.anthropic import Messages
from zene.llm.openai import ChatCompletions
from zene.llm.responses import Responses
from zene.llm.wire import Wire
from zene.tools import TOOLS

WIRES: list[Wire] = [ChatCompletions(is_openai=True), Responses(), Messages()]
PROMPT = "The total is off by one when the list is empty. Find out why, mend it and add a test."
TURNS = [
    says("I look at the project first.", call("list_files")),
    says("Where is it?", call("search_files", pattern="def total")),
    says("I read it.", call("read_file", path="src/totals.py")),
    says("And its tests.", call("find_files", pattern="test_*.py")),
    says("I reproduce it.", call("shell", command="python3 -c 'from src.totals import total; total([])'")),
    says("I write the test.", call("write_file", path="tests/test_empty.py", content="def test_empty():\n    assert total([]) == 0\n" * 5)),
    says("It fails.", call("shell", command="seq 1 60")),
    says("I mend it.", call("edit_file", path="src/totals.py", old_text="value_7 = 7", new_text="value_7 = 8")),
    says("Now it passes.", call("shell", command="seq 1 40")),
    says("What did I change?", call("shell", command="ls -l src")),
    says("The total of an empty list is zero now, and a test says so."),
]  # fmt: skip


@pytest.fixture
async def model(tmp_path: Path) -> Scripted:
    """A model that has done a task of ten turns."""
    bench = LocalBench(tmp_path)
    await bench.write("src/totals.py", b"".join(b"value_%d = %d\n" % (n, n) for n in range(40)))
    model = Scripted(*TURNS)
    record = Record(new_task(PROMPT))
    loop = run(record.situation(), model=model, tools=TOOLS, ops=LocalOperations(bench))
    async with aclosing(loop):
        grant = None
        while record.end is None:
            grant = record.commit(await loop.asend(grant))
    assert [call.result.status for call in record.calls.values() if call.result].count(
        "failed"
    ) == 1
    return model


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_the_first_request_is_small(model: Scripted, wire: Wire) -> None:
    assert len(wire.body(model.requests[0])) <= 6000


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_all_requests_of_a_task_of_ten_turns_are_small(model: Scripted, wire: Wire) -> None:
    bodies = [wire.body(request) for request in model.requests]
    assert len(bodies) == 11
    assert sum(map(len, bodies)) <= 100_000


@pytest.mark.parametrize("wire", [ChatCompletions(is_openai=False), Responses()])
def test_every_request_begins_with_the_one_before(model: Scripted, wire: Wire) -> None:
    bodies = [wire.body(request) for request in model.requests]
    for one, after in itertools.pairwise(bodies):
        shared = one[: one.rindex(b"]")]
        assert after.startswith(shared)

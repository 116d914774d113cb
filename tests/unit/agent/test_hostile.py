"""Hostile arguments of calls: whatever they are, the model gets a result and the task goes on."""

import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.local import LocalBench, LocalOperations
from tests.record import Record
from tests.scripted import Scripted, raw_call, says
from zene.agent.loop import run
from zene.tools import TOOLS

DATA = Path(__file__).parents[2] / "data/hostile/tools.json"
CASES: list[dict[str, Any]] = json.loads(DATA.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
async def test_a_hostile_call_gets_a_result_and_the_task_goes_on(
    case: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("Read me.\n")
    filler = case.get("filler", "x") * case.get("repeat", 1)
    made = raw_call(case["name"].replace("@", filler), case["arguments"].replace("@", filler))
    record = Record()
    loop = run(
        record.situation(),
        model=Scripted(says(made), says("I see.")),
        tools=TOOLS,
        ops=LocalOperations(LocalBench(tmp_path)),
    )
    async with aclosing(loop):
        grant = None
        while record.end is None:
            grant = record.commit(await loop.asend(grant))
    (settled,) = record.calls.values()
    assert settled.result is not None
    assert settled.result.status == case["status"], settled.result.output
    assert case["says"] in settled.result.output
    assert len(settled.result.output) < 2000
    assert record.finished.outcome == "succeeded"
    if case.get("intact"):
        assert files(tmp_path) == {"README.md": "Read me.\n"}


def files(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.iterdir()}

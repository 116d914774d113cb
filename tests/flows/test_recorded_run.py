"""A recorded run of a real agent on a real bug, replayed on the real sources through the whole of Zene."""

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from tests.model_server import Answer, Call, ModelServer, Script, play_trajectory
from tests.model_server.asking import MODELS, WIRES, WireName
from tests.servers import RESUMED_SECONDS, Log, Zene, a_free_port, data, served_by
from tests.sources import make_project, requirements
from zene.client import AsyncClient
from zene.domain.errors import NotFound
from zene.domain.events import CALL_KINDS

RECORDED = Path("tests/data/trajectories/marshmallow-1867.json").resolve()
RUN: dict[str, Any] = json.loads(RECORDED.read_text())
PATHS = {
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
    "anthropic": "/v1/messages",
}
FIXED = "Run the field's own tests."
OWN_TESTS = (
    "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=src:{requirements} python3 -m pytest -q -p no:cacheprovider"
    " tests/test_serialization.py tests/test_fields.py"
)


@pytest.fixture
async def model(wire: WireName) -> AsyncIterator[ModelServer]:
    """By Responses the model reasons before each call, and what it thought has to come back."""
    command = OWN_TESTS.format(requirements=requirements())
    tested = [
        Answer(calls=[Call(name="shell", arguments={"command": command})]),
        Answer(text="Ok."),
    ]
    run = play_trajectory(RECORDED, reasoning=wire == "openai.responses")
    script = Script(answers=run.answers, answers_to={FIXED: tested})
    async with ModelServer({"*": script}) as server:
        yield server


@pytest.fixture
def wire() -> WireName:
    """The wire format that a test's server speaks, where the test names none."""
    return "openai.chat"


@pytest.fixture
async def zene(tmp_path: Path, model: ModelServer, wire: WireName) -> AsyncIterator[Zene]:
    """Signed in to a running server whose sandboxes see what the project's tests import."""
    maker, _, api = wire.partition(".")
    settings = {"ZENE_OPENAI_API": api} if api else {}
    settings["ZENE_SANDBOX_READ_ONLY_PATHS"] = str(requirements())
    variables = served_by(model, f"{maker}:{MODELS[wire]}", **settings)
    async with Zene(tmp_path, variables, a_free_port()) as person:
        await person.up()
        await person.login()
        yield person


async def replayed(zene: Zene, project: Path) -> tuple[str, str]:
    """The run by the command line; its session and the diff that it showed."""
    code, out, err = await zene("run", RUN["prompt"], "--project", str(project))
    assert code == 0, err + out
    return re.findall(r"ses_\w+", err)[0], out[out.index("diff --git") :]


def check_calls(calls: Sequence[dict[str, Any]]) -> None:
    """Every call stands in the log as it was recorded, and put out what was recorded."""
    steps = [step for step in RUN["steps"] if step["do"] != "finish"]
    asked = [call for answer in play_trajectory(RECORDED).answers for call in answer.calls]
    assert [(call["name"], call["arguments"]) for call in calls] == [
        (call.name, call.arguments) for call in asked
    ]
    for step, call in zip(steps, calls, strict=True):
        assert call["status"] == "succeeded", call
        expected = step.get("expect", {})
        if "output" in expected:
            assert call["output"] == expected["output"]
        assert expected.get("output_contains", "") in call["output"]


def check_diff(diff: str) -> None:
    expected = RUN["expect"]
    lines = diff.splitlines()
    changed = [line for line in lines if line.startswith("+++ ")]
    assert changed == [f"+++ b/{path}" for path in expected["files_changed"]]
    assert f"+{expected['added_line']}" in lines
    assert [line for line in lines if re.match("-[^-]", line)] == [f"-{expected['removed_line']}"]


@pytest.mark.parametrize("wire", WIRES)
async def test_the_recorded_run_is_replayed_step_by_step(
    zene: Zene, model: ModelServer, wire: WireName, tmp_path: Path
) -> None:
    session, diff = await replayed(zene, make_project(tmp_path))
    log = Log(await zene.client(), session)
    await log.check()
    check_calls(log.calls())
    check_diff(diff)
    assert {request.path for request in model.requests} == {PATHS[wire]}
    code, _, err = await zene("run", FIXED, "--session", session)
    assert code == 0, err
    await log.check()
    tested = log.calls()[-1]
    assert re.search(r"\d\d\d passed", tested["output"]), tested["output"]
    assert tested["exit_code"] == 0, tested["output"]


async def test_two_people_at_once_see_only_their_own(zene: Zene, tmp_path: Path) -> None:
    bob = await zene.another("bob@zene.test")
    people = (zene, bob)
    runs = [replayed(each, make_project(each.home / "sources")) for each in people]
    results = await asyncio.gather(*runs)
    clients = [await zene.client(), await zene.client("bob@zene.test")]
    for (session, diff), client, (others, _), other in zip(
        results, clients, reversed(results), reversed(clients), strict=True
    ):
        check_diff(diff)
        log = Log(client, session)
        await log.check()
        check_calls(log.calls())
        assert [each.id for each in (await client.sessions()).items] == [session]
        assert len((await client.projects()).items) == 1
        [theirs] = (await other.tasks(others)).items
        item = log.calls()[0]["item_id"]
        for ask in (
            client.session(others),
            client.events(others),
            client.diff(others),
            client.files(others),
            client.read_file(others, "setup.py"),
            client.output(others, item),
            client.task(theirs.id),
            client.cancel(theirs.id),
            client.submit(others, "Mine now."),
        ):
            with pytest.raises(NotFound):
                await ask


async def test_a_server_that_is_killed_at_five_random_points_finishes_the_run_all_the_same(
    zene: Zene, model: ModelServer, tmp_path: Path
) -> None:
    seed = int(os.environ.get("ZENE_TEST_SEED") or secrets.randbelow(10**6))
    print(f"ZENE_TEST_SEED={seed} kills at the same points again")  # noqa: T201
    random = Random(seed)
    slow = [replace(answer, delay_ms=5) for answer in model.scripts["*"].answers]
    model.scripts["*"] = Script(answers=slow)
    running = await zene.start("run", RUN["prompt"], "--project", str(make_project(tmp_path)))
    await model.until(lambda: model.requests)
    client = await zene.client()
    session = (await client.sessions()).items[0].id
    for steps in sorted(random.sample(range(len(slow) - 1), 5)):
        await happened(client, session, steps, random.randrange(7))
        await zene.restart()
    code, out, err = await running.end()
    assert code == 0, err
    await check_after_kills(Log(client, session), model, out)


async def happened(client: AsyncClient, session: str, steps: int, more: int) -> None:
    """Wait until so many answers of the model are whole, and for so many events since, fleeting ones too."""
    async with asyncio.timeout(RESUMED_SECONDS), aclosing(client.follow(session)) as events:
        async for event in events:
            if steps:
                is_whole = event.type == "step.finished"
                steps -= is_whole and data(event)["stop_reason"] != "interrupted"
            elif more:
                more -= 1
            else:
                return


async def check_after_kills(log: Log, model: ModelServer, out: str) -> None:
    """Nothing is lost or repeated without a mark, by the log, by what the model was told, and by the diff."""
    await log.check()
    asked = [call for answer in play_trajectory(RECORDED).answers for call in answer.calls]
    calls = log.calls()
    assert [(call["name"], call["arguments"]) for call in calls] == [
        (call.name, call.arguments) for call in asked
    ]
    assert sum(begun["kind"] in CALL_KINDS for begun in log.of("item.started")) == len(asked)
    assert log.of("task.started")[-1]["attempt"] == 6
    told = [
        each for each in json.loads(model.requests[-1].body)["messages"] if each["role"] == "tool"
    ]
    assert [each["content"] for each in told] == [call["output"] for call in calls]
    assert {each.status for each in model.requests} == {200}
    interrupted = [call["name"] for call in calls if call["status"] == "interrupted"]
    if not interrupted:
        check_calls(calls)
        check_diff(out[out.rindex("diff --git") :])

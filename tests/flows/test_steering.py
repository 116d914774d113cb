"""A user speaks to a task that is worked on: it hears it before its next step, once, whatever happens."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flows.test_changing_models import MODELS, PATHS
from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import RESUMED_SECONDS, Log, Zene, a_free_port, begin, says, served_by
from zene.domain.errors import Conflict

UNTIL_TOLD = "echo begun; until [ -e go ]; do sleep 0.05; done"
WORK = Answer(
    calls=[
        Call(name="shell", arguments={"command": UNTIL_TOLD}),
        Call(name="list_files", arguments={"path": "."}),
    ]
)
FOR_EVER = Call(name="shell", arguments={"command": "echo begun; sleep 600"})
SLOWLY = Answer(text="one two three four five six seven eight nine ten " * 2, delay_ms=50)
DONE = Answer(text="Done.")


@pytest.fixture
async def zene(tmp_path: Path, model: ModelServer) -> AsyncIterator[Zene]:
    file = tmp_path / "models.toml"
    file.write_text(MODELS)
    file.chmod(0o600)
    variables = served_by(model, "responses", ZENE_CONFIG=str(file))
    async with Zene(tmp_path, variables, a_free_port()) as person:
        await person.up()
        yield person


def said(log: Log) -> list[str]:
    """What the user said, as the log has it."""
    return [one["text"] for one in log.of("item.completed") if one["kind"] == "user_message"]


@pytest.mark.parametrize("wire", PATHS)
async def test_what_is_said_meanwhile_is_heard_at_the_next_step_and_delays_the_end(
    zene: Zene, model: ModelServer, wire: str
) -> None:
    model.scripts["*"] = Script(
        answers=[WORK, SLOWLY], answers_to={"And then?": [DONE]}, takes_steering=True
    )
    log, task = await begin(zene, model=wire)
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.steer(task, "Be brief.")
    await log.client.write_file(log.session_id, "go", b"")
    await log.live(says("item.delta", kind="message", text="one"))
    steer = await log.client.steer(task, "And then?")
    assert (await log.finished(task))["outcome"] == "succeeded"
    await log.check()
    assert said(log) == ["Go.", "Be brief.", "And then?"]
    assert {each.path for each in model.requests} == {PATHS[wire]}
    counts = [
        [each.body.count(text) for text in ("Be brief.", "And then?")] for each in model.requests
    ]
    assert counts == [[0, 0], [1, 0], [1, 1]]
    items = [event.item_id for event in log.events if event.type == "item.completed"]
    assert items[-2] == steer.id
    with pytest.raises(Conflict) as caught:
        await log.client.steer(task, "Too late.")
    assert caught.value.code == "not_running"


async def test_what_was_said_outlives_a_kill_and_is_heard_once(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER]), DONE], takes_steering=True)
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.steer(task, "Be brief.")
    await zene.restart()
    assert (await log.finished(task, RESUMED_SECONDS))["outcome"] == "succeeded"
    await log.check()
    assert said(log) == ["Go.", "Be brief."]
    assert [each.body.count("Be brief.") for each in model.requests] == [0, 1]


async def test_what_a_cancelled_task_did_not_hear_the_next_one_does(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers_to={"Go.": [Answer(calls=[FOR_EVER])], "Now.": [DONE]})
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    await log.client.steer(task, "Be brief.")
    await log.client.cancel(task)
    assert (await log.finished(task))["outcome"] == "cancelled"
    following = (await log.client.submit(log.session_id, "Now.")).id
    assert (await log.finished(following))["outcome"] == "succeeded"
    await log.check()
    assert said(log) == ["Go.", "Be brief.", "Now."]
    assert model.requests[-1].body.count("Be brief.") == 1


async def test_a_word_is_sent_from_the_command_line(zene: Zene, model: ModelServer) -> None:
    model.scripts["*"] = Script(answers=[WORK, DONE], takes_steering=True)
    log, task = await begin(zene)
    await zene.login()
    await log.live(says("item.delta", kind="command", text="begun"))
    code, _, err = await zene("steer", task, "Be brief.")
    assert (code, err) == (0, "It will hear this before its next step.\n")
    await log.client.write_file(log.session_id, "go", b"")
    assert (await log.finished(task))["outcome"] == "succeeded"
    assert said(log) == ["Go.", "Be brief."]
    code, _, err = await zene("steer", task, "Too late.")
    assert (code, "not being worked on" in err) == (1, True)

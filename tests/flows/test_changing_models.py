"""A session goes from one maker's model to another's and back, through the whole of Zene."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import Log, Zene, a_free_port, served_by

# Each of the six directions between three wire formats once.
JOURNEY = ("chat", "responses", "chat", "anthropic", "responses", "anthropic", "chat")
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "anthropic": "/v1/messages",
}
MODELS = """
[models.chat]
provider = "openai"
model = "deepseek-chat"
[models.responses]
provider = "openai"
model = "gpt-5.4"
api = "responses"
[models.anthropic]
provider = "anthropic"
model = "claude-opus-4-7"
"""


def answers(task: int) -> list[Answer]:
    """Thinks, makes calls side by side, thinks again, makes one more, and ends."""
    write = {"path": f"{task}.txt", "content": f"written-{task}"}
    calls = [
        Call(name="list_files", arguments={"path": "."}, id=f"functions.list_files:{task}"),
        Call(name="write_file", arguments=write, id=f"call_{task}_{'x' * 60}"),
    ]
    read = Call(name="read_file", arguments={"path": f"{task}.txt"})
    return [
        Answer(reasoning=f"thought-{task}, first.", text=f"I look, {task}.", calls=calls),
        Answer(reasoning=f"thought-{task}, second.", calls=[read]),
        Answer(reasoning=f"thought-{task}, third.", text=f"done-{task}."),
    ]


@pytest.fixture
async def zene(tmp_path: Path, model: ModelServer) -> AsyncIterator[Zene]:
    file = tmp_path / "models.toml"
    file.write_text(MODELS)
    file.chmod(0o600)
    variables = served_by(model, "chat", ZENE_CONFIG=str(file))
    async with Zene(tmp_path, variables, a_free_port()) as person:
        await person.up()
        yield person


async def test_a_session_takes_every_direction_between_the_wire_formats(
    zene: Zene, model: ModelServer
) -> None:
    told = {f"<{task}>": answers(task) for task in range(len(JOURNEY))}
    model.scripts["*"] = Script(answers_to=told)
    client = await zene.client()
    log = Log(client, (await client.create_session(approval_policy="auto")).id)
    for task, name in enumerate(JOURNEY):
        model.requests.clear()
        submitted = await client.submit(log.session_id, f"<{task}>", model=name)
        end = await log.finished(submitted.id)
        assert end["outcome"] == "succeeded", end
        assert [(each.path, each.status) for each in model.requests] == [(PATHS[name], 200)] * 3
        check_bodies([each.body for each in model.requests], task)
    await log.check()
    said = [each["text"] for each in log.of("item.completed") if each["kind"] == "reasoning"]
    assert said == [
        f"thought-{task}, {nth}." for task in range(7) for nth in ("first", "second", "third")
    ]
    assert [call["status"] for call in log.calls()] == ["succeeded"] * 21


def check_bodies(bodies: list[str], task: int) -> None:
    """Each begins with the one before; all texts and results are told, and of what was thought only its own."""
    unmarked = [body.replace(',"cache_control":{"type":"ephemeral"}', "") for body in bodies]
    for one, after in itertools.pairwise(unmarked):
        assert after.startswith(one.removesuffix("]}"))
    for before in range(task):
        assert f"done-{before}." in bodies[-1]
        assert bodies[-1].count(f"written-{before}") >= 2
        is_own = JOURNEY[before] == JOURNEY[task]
        assert (f"thought-{before}, second." in bodies[-1]) == is_own

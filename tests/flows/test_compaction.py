"""A history that does not fit is summed up, and what was changed is told beside the summary."""

from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import Zene, begin

COMMAND = "echo x > made.txt; seq 9999"


async def test_what_a_command_changed_is_told_beside_the_summary(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(
        answers=[Answer(calls=[Call(name="shell", arguments={"command": COMMAND})])],
        answers_to={
            "no longer fits": [Answer(text="The summary.")],
            "The summary.": [Answer(text="Done.")],
        },
        window=5000,
    )
    log, task = await begin(zene)
    assert (await log.finished(task))["outcome"] == "succeeded"
    assert [request.status for request in model.requests] == [200, 400, 200, 200]
    assert r"\"changed_files\":[\"made.txt\"]" in model.requests[-1].body

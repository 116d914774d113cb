"""The project's own rules reach the model with the first request, whatever they were before that."""

import io
import tarfile
from pathlib import Path

from tests.model_server import Answer, ModelServer, Script
from tests.servers import Log, Zene, begin


async def test_the_rules_are_those_of_the_workspace_as_it_is_when_a_task_begins(
    zene: Zene, model: ModelServer, tmp_path: Path
) -> None:
    model.scripts["*"] = Script(answers=[Answer(text="One."), Answer(text="Two.")])
    archive = tmp_path / "project.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        rules = b"Answer in rhymes.\n"
        entry = tarfile.TarInfo("AGENTS.md")
        entry.size = len(rules)
        tar.addfile(entry, io.BytesIO(rules))
    client = await zene.client()
    project = await client.create_project("rhymes")
    await client.upload(project.id, archive)
    log, task = await begin(zene, project_id=project.id)
    await log.finished(task)
    assert "Answer in rhymes." in model.requests[0].body
    await client.write_file(log.session_id, "AGENTS.md", b"Answer in prose.\n")
    task = (await client.submit(log.session_id, "And now?")).id
    await log.finished(task)
    assert "Answer in prose." in model.requests[-1].body


async def test_rules_that_were_written_before_the_first_task_count(
    zene: Zene, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(text="One.")])
    client = await zene.client()
    session = await client.create_session()
    await client.write_file(session.id, "CLAUDE.md", b"Answer in haiku.\n")
    task = (await client.submit(session.id, "Go.")).id
    await Log(client, session.id).finished(task)
    assert "Answer in haiku." in model.requests[0].body

"""A session that is deleted while it works leaves nothing: no row, no file, no process."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.servers import Zene, begin, says
from zene.domain.errors import NotFound

RESIDUE_SECONDS = 60
LONG = Call(name="shell", arguments={"command": "seq 20000; echo x > file; echo begun; sleep 600"})


def rows(data: Path, session_id: str) -> list[str]:
    """Tables that have a row of the session."""
    with closing(sqlite3.connect(f"file:{data / 'zene.db'}?mode=ro", uri=True)) as store:
        tables = [
            row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        found = []
        for table in tables:
            columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            key = "session_id" if "session_id" in columns else "id" if table == "sessions" else None
            if (
                key
                and store.execute(
                    f"SELECT 1 FROM {table} WHERE {key} = ? LIMIT 1", (session_id,)
                ).fetchone()
            ):
                found.append(table)
        return found


def files(data: Path, session_id: str) -> list[Path]:
    return list(data.rglob(f"*{session_id}*"))


@pytest.mark.parametrize("killed", [False, True], ids=["", "and the server is killed at once"])
async def test_nothing_is_left_of_a_session_that_is_deleted_at_work(
    zene: Zene, model: ModelServer, *, killed: bool
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[LONG]), Answer(text="Done.")])
    log, task = await begin(zene)
    await log.live(says("item.delta", kind="command", text="begun"))
    data = zene.home / "data"
    assert {"sessions", "tasks", "events", "items"} <= set(rows(data, log.session_id))
    assert files(data, log.session_id)
    await log.client.delete_session(log.session_id)
    if killed:
        await zene.restart()
    async with asyncio.timeout(RESIDUE_SECONDS):
        while rows(data, log.session_id) or files(data, log.session_id):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    with pytest.raises(NotFound):
        await log.client.task(task)

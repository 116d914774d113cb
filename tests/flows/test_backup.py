"""A backup that is made while Zene works is a whole installation of its own."""

import asyncio
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.servers import ADMIN, Log, Zene, begin, says

WRITES = Call(
    name="shell",
    arguments={
        "command": "echo x >> log.txt; (while :; do head -c 70000 /dev/urandom > $RANDOM; done) >/dev/null 2>&1 &"
    },
)


@pytest.fixture
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where to make one: not below a server's folder, since there is a key in it."""
    return tmp_path_factory.mktemp("backups") / "backup"


async def restored(zene: Zene, backup: Path) -> Zene:
    """A server on what was backed up, in a data folder of its own beside the backup."""
    home = backup.parent / "other"
    home.mkdir()
    other = replace(zene, home=home, programs=[], clients=[])
    code, out, err = await other("restore", str(backup))
    assert code == 0, err
    assert "Restored" in out
    return other


def damages(backup: Path) -> list[str]:
    """What a check of the file system in each image would mend."""
    images = backup.glob("files/workspaces/*.img")
    checks = [
        subprocess.run(["/sbin/e2fsck", "-fn", image], capture_output=True, text=True, check=False)
        for image in images
    ]
    return [check.stdout if check.returncode else "" for check in checks]


async def test_what_runs_while_a_backup_is_made_goes_on_in_the_copy(
    zene: Zene, model: ModelServer, backup: Path
) -> None:
    stalled = Answer(text="Done.", delay_ms=20, fault=Fault(times=1, stall_at=0))
    model.scripts["*"] = Script(answers=[Answer(calls=[WRITES]), stalled])
    log, task = await begin(zene)
    await log.until(says("item.completed", name="shell"))
    await model.until(lambda: len(model.requests) == 2)
    code, out, err = await zene("backup", str(backup))
    assert code == 0, err
    assert "1 users, 0 projects, 1 sessions" in out
    assert await asyncio.to_thread(damages, backup) == [""]
    await zene.kill()
    async with await restored(zene, backup) as other:
        await other.up()
        there = Log(await other.client(), log.session_id)
        assert (await there.finished(task))["outcome"] == "succeeded"
        await there.check()
        await there.ran_once()
        assert there.events[: len(log.events)] == log.events
        kept = json.loads((backup / "backup.json").read_text())
        marker = (other.home / "data" / "installation").read_text().strip()
        assert marker != kept["installation"]


async def test_a_sign_in_of_before_is_good_in_the_copy(zene: Zene, backup: Path) -> None:
    client = await zene.client()
    assert (await zene("backup", str(backup)))[0] == 0
    await zene.kill()
    async with await restored(zene, backup) as other:
        await other.up()
        assert (await client.me()).email == ADMIN


async def test_what_is_no_whole_backup_is_refused(zene: Zene, backup: Path) -> None:
    assert (await zene("backup", str(backup)))[0] == 0
    code, _, err = await zene("backup", str(backup))
    assert (code, "Cannot make" in err) == (2, True)
    code, _, err = await zene("restore", str(backup))
    assert (code, "belongs to an installation already" in err) == (2, True)
    (backup / "backup.json").unlink()
    home = backup.parent / "another"
    code, _, err = await zene("restore", str(backup), "--data-dir", str(home))
    assert (code, "no whole backup" in err) == (2, True)
    assert not home.exists()


async def test_a_store_that_is_in_use_is_not_restored_into(zene: Zene, backup: Path) -> None:
    assert (await zene("backup", str(backup)))[0] == 0
    used = f"sqlite:///{zene.home / 'data' / 'zene.db'}"
    code, _, err = await zene(
        "restore", str(backup), "--data-dir", str(backup.parent / "new"), ZENE_STORE=used
    )
    assert (code, "is not empty" in err) == (2, True)


@pytest.mark.parametrize("given", ["a key of another installation, long enough", ""])
async def test_a_key_that_does_not_fit_is_refused(zene: Zene, backup: Path, given: str) -> None:
    await zene.client()  # so that there is a signing key
    assert (await zene("backup", str(backup)))[0] == 0
    (backup / "secret.key").write_text("something else")
    code, _, err = await zene(
        "restore",
        str(backup),
        "--data-dir",
        str(backup.parent / "new"),
        ZENE_SECRET_KEY=given,
    )
    assert code == 2
    assert "ZENE_SECRET_KEY" in err or "secret.key" in err
    for command in ("migrate", "up"):
        code, _, err = await zene(command, "--data-dir", str(backup.parent / "new"))
        assert (code, "run `zene restore` again" in err) == (2, True)

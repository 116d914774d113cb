"""Gateways and workers as processes of their own: what they need to start."""

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.many import Many
from tests.model_server import ModelServer
from tests.planted import PASSWORD
from tests.redis_server import redis_server
from tests.servers import ADMIN, Ended, served_by
from zene.client import AsyncClient

KEY = "a text of thirty-two characters, or more"


@pytest.fixture
async def many(tmp_path: Path, model: ModelServer) -> AsyncIterator[Many]:
    """An installation, not made yet."""
    async with (
        redis_server(tmp_path) as redis,
        Many(tmp_path, served_by(model, ZENE_BUS=redis.url)) as installation,
    ):
        yield installation


def refused(ended: Ended, *told: str) -> None:
    code, out, err = ended
    assert code == 2, out + err
    assert "Traceback" not in err
    for words in told:
        assert words in err


async def test_two_migrations_at_once_make_one_installation(many: Many) -> None:
    ended = await asyncio.gather(*(many.person("migrate") for _ in range(3)))
    names = set()
    for code, out, err in ended:
        assert code == 0, out + err
        names.update(re.findall(r"of installation (\w+)", out))
    [name] = names
    data = many.home / "data"
    assert (data / "installation").read_text().strip() == name
    assert sum(ADMIN in out for _, out, _ in ended) == 1
    with closing(sqlite3.connect(data / "zene.db")) as store:
        assert store.execute("SELECT id FROM installation").fetchall() == [(name,)]
        assert store.execute("SELECT email FROM users").fetchall() == [(ADMIN,)]
        assert store.execute("SELECT count(*) FROM signing_keys").fetchone() >= (1,)


async def test_nobody_is_added_without_a_password_to_migrate(many: Many) -> None:
    code, out, _ = await many.person("migrate", ZENE_ADMIN_PASSWORD="")
    assert (code, "administrator" in out) == (0, False)
    assert "there is no user yet" in out


async def test_a_bus_in_memory_is_refused_with_the_cure(many: Many) -> None:
    await many.person("migrate")
    for command in ("gateway", "worker"):
        refused(await many.person(command, ZENE_BUS="memory://"), "ZENE_BUS=redis://")


async def test_what_was_not_migrated_is_refused_and_not_made(many: Many) -> None:
    for command in ("gateway", "worker"):
        refused(await many.person(command), "no schema yet", "zene migrate")
    assert not (many.home / "data" / "zene.db").exists()
    await many.person("migrate")
    with closing(sqlite3.connect(many.home / "data" / "zene.db")) as store:
        store.execute("UPDATE alembic_version SET version_num = '0999'")
        store.commit()
    for command in ("gateway", "worker"):
        refused(await many.person(command), "0999", "a newer one")


async def test_a_worker_refuses_a_folder_that_is_not_the_installations(
    many: Many, tmp_path: Path
) -> None:
    await many.person("migrate")
    store = f"sqlite:///{many.home}/data/zene.db"
    other = str(tmp_path / "other")
    refused(
        await many.person("worker", ZENE_STORE=store, ZENE_DATA_DIR=other),
        "has no marker",
        "ZENE_DATA_DIR",
    )
    await many.person("migrate", ZENE_DATA_DIR=other)
    refused(
        await many.person("worker", ZENE_STORE=store, ZENE_DATA_DIR=other),
        "belongs to installation",
    )
    refused(
        await many.person("migrate", ZENE_STORE=store, ZENE_DATA_DIR=other),
        "belongs to installation",
    )


async def test_an_empty_store_is_not_taken_for_that_of_the_folder(many: Many) -> None:
    await many.person("migrate")
    workspace = many.home / "data" / "workspaces" / "somebodys"
    workspace.parent.mkdir(exist_ok=True)
    workspace.touch()
    os.utime(workspace, (0, 0))
    empty = f"sqlite:///{many.home}/empty.db"
    for command in ("migrate", "up"):
        refused(
            await many.person(command, ZENE_STORE=empty, ZENE_BUS="memory://"),
            "belongs to installation",
            "Correct ZENE_STORE",
        )
    assert workspace.exists()


async def test_a_gateway_needs_the_key_and_no_data_folder(many: Many, tmp_path: Path) -> None:
    given = {"ZENE_STORE": f"sqlite:///{many.home}/data/zene.db", "ZENE_SECRET_KEY": KEY}
    code, out, err = await many.person("migrate", **given)
    assert code == 0, out + err
    refused(await many.person("migrate", ZENE_SECRET_KEY=""), "ZENE_SECRET_KEY")
    assert not (many.home / "data" / "secret.key").exists()
    elsewhere = given | {"ZENE_DATA_DIR": str(tmp_path / "none")}
    refused(await many.person("gateway", **elsewhere | {"ZENE_SECRET_KEY": ""}), "ZENE_SECRET_KEY")
    refused(await many.person("gateway", **elsewhere | {"ZENE_SECRET_KEY": KEY[:31]}), "32")
    refused(
        await many.person("gateway", **elsewhere | {"ZENE_SECRET_KEY": KEY[::-1]}),
        "another ZENE_SECRET_KEY",
    )
    one = await many.gateway(**elsewhere)
    other = await many.gateway(**elsewhere)
    assert not (tmp_path / "none").exists()
    async with AsyncClient(one.name) as client:
        tokens = await client.login(ADMIN, PASSWORD)
    async with AsyncClient(other.name, tokens=tokens) as client:
        assert (await client.me()).email == ADMIN


async def test_workers_and_a_server_of_its_own_keep_apart(many: Many) -> None:
    await many.make(gateways=0, workers=2)
    refused(await many.person("up", "--port", "0", ZENE_BUS="memory://"), "in use by another")

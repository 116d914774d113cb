"""Gateways that are not where the files are: all of them over the bus, whatever happens to who holds them."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.planted import PASSWORD
from tests.redis_server import RedisServer, redis_server
from tests.servers import ADMIN, says, served_by
from tests.unit.workspaces.archives import archive
from zene.client import AsyncClient
from zene.domain.errors import Conflict, Unavailable, ZeneError

PROJECT = {"src/app.py": b"answer = 41\n", "README.md": b"# A project\n"}
SHELL = Call(
    name="shell", arguments={"command": "echo 'answer = 42' > src/app.py; seq 1 20000; echo end"}
)
FOR_EVER = Call(name="shell", arguments={"command": "echo begun; sleep 600"})
SECONDS = 3.0  # in which an answer comes, whoever is away


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def many(tmp_path: Path, model: ModelServer, redis: RedisServer) -> AsyncIterator[Many]:
    """An installation, not made yet."""
    async with Many(tmp_path, served_by(model, ZENE_BUS=redis.url)) as installation:
        yield installation


async def uploaded(client: AsyncClient, folder: Path) -> str:
    """A project of two files."""
    packed = folder / "project.tar.gz"
    packed.write_bytes(archive(PROJECT))
    project = await client.create_project("mine")
    assert (await client.upload(project.id, packed)).project.state == "ready"
    return project.id


@asynccontextmanager
async def raw(many: Many, gateway: int = 0) -> AsyncIterator[httpx.AsyncClient]:
    """The same person at that gateway, without what tries again."""
    url = many.gateways[gateway].name
    async with AsyncClient(url) as client:
        token = (await client.login(ADMIN, PASSWORD)).access_token
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=30, trust_env=False
    ) as client:
        yield client


async def refused(asked: Awaitable[httpx.Response]) -> None:
    """It is 503 in time, and says when to come back."""
    async with asyncio.timeout(SECONDS):
        response = await asked
    assert (response.status_code, response.json()["code"]) == (503, "unavailable"), response.text
    assert int(response.headers["retry-after"]) >= 1


async def back(asked: AsyncClient, session_id: str) -> list[str]:
    """The names in the workspace, as soon as somebody answers."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Unavailable):
                return [entry.name for entry in (await asked.files(session_id)).items]


async def test_files_of_any_session_by_any_gateway(
    many: Many, model: ModelServer, tmp_path: Path
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SHELL]), Answer(text="Done.")])
    await many.make(gateways=2, workers=2)
    here, there = await many.client(0), await many.client(1)
    log, task = await many.begin(project_id=await uploaded(here, tmp_path))
    assert (await log.finished(task))["outcome"] == "succeeded"
    for client in (here, there):
        names = [entry.name for entry in (await client.files(log.session_id)).items]
        assert names == ["README.md", "src"]
        assert await client.read_file(log.session_id, "src/app.py") == b"answer = 42\n"
        assert [file.path for file in (await client.diff(log.session_id)).files] == ["src/app.py"]
    big = os.urandom(5 << 20)
    await there.write_file(log.session_id, "data/big", big)
    assert await here.read_file(log.session_id, "data/big") == big
    [item] = [each["item_id"] for each in log.calls()]
    printed = await there.output(log.session_id, item)
    assert printed == "".join(f"{n}\n" for n in range(1, 20001)).encode() + b"end\n"
    for path, status in (("gone", 404), ("../etc/passwd", 422), ("src", 422)):
        with pytest.raises(ZeneError) as raised:
            await there.read_file(log.session_id, path)
        assert raised.value.status == status


async def test_without_a_worker_it_is_unavailable_and_with_one_it_works(
    many: Many, tmp_path: Path
) -> None:
    await many.make(gateways=1, workers=1)
    client = await many.client()
    session = await client.create_session(project_id=await uploaded(client, tmp_path))
    assert await back(client, session.id) == ["README.md", "src"]
    async with raw(many) as http:
        url = f"/v1/sessions/{session.id}/files"
        many.workers[0].freeze()
        await refused(http.get(url))
        many.workers[0].thaw()
        assert await back(client, session.id) == ["README.md", "src"]
        await many.workers[0].kill()
        await refused(http.get(url))
        await refused(http.put(f"{url}/content?path=x", content=b"x"))
        await refused(http.get(f"/v1/sessions/{session.id}/diff"))
    await many.worker()
    assert await back(client, session.id) == ["README.md", "src"]


async def test_the_worker_that_runs_a_session_reads_its_files(
    many: Many, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[FOR_EVER])])
    await many.make(gateways=1, workers=3)
    log, task = await many.begin()
    await log.live(says("item.delta", kind="command", text="begun"))
    client = await many.client()
    await client.write_file(log.session_id, "said.txt", b"meanwhile")
    assert await client.read_file(log.session_id, "said.txt") == b"meanwhile"
    holder = await many.holder(log)
    await client.cancel(task)
    await log.finished(task)
    await holder.kill()
    assert await back(client, log.session_id) == ["said.txt"]


async def test_a_download_and_an_upload_whose_worker_is_killed_are_never_taken_for_whole(
    many: Many, tmp_path: Path
) -> None:
    await many.make(gateways=1, workers=1)
    client = await many.client()
    project_id = await uploaded(client, tmp_path)
    session = await client.create_session(project_id=project_id)
    await client.write_file(session.id, "big", bytes(32 << 20))
    async with raw(many) as http:
        url = f"/v1/sessions/{session.id}/files/content?path=big"
        async with http.stream("GET", url) as response:
            assert response.status_code == 200
            pieces = response.aiter_raw()
            assert await anext(pieces)
            await many.workers[0].kill()
            with pytest.raises(httpx.RemoteProtocolError):
                b"".join([piece async for piece in pieces])
        await many.worker()
        assert await back(client, session.id) == ["README.md", "big", "src"]

        async def endless() -> AsyncIterator[bytes]:
            packed = archive({"new.bin": os.urandom(4 << 20)})
            yield packed[: 3 << 20]
            await many.workers[1].kill()
            yield packed[3 << 20 :]

        response = await http.put(f"/v1/projects/{project_id}/archive", content=endless())
        assert response.status_code == 503, response.text
    await many.worker()
    other = await client.create_session(project_id=project_id)
    assert await back(client, other.id) == ["README.md", "src"]


async def test_an_upload_that_its_sender_or_its_gateway_breaks_off_is_not_seen(
    many: Many, tmp_path: Path
) -> None:
    await many.make(gateways=2, workers=1)
    client = await many.client()
    project_id = await uploaded(client, tmp_path)
    packed = archive({"new.bin": os.urandom(4 << 20)})
    there = await many.client(1)
    for by in ("sender", "gateway"):

        async def breaks_off(by: str = by) -> AsyncIterator[bytes]:
            yield packed[: 3 << 20]
            if by == "sender":
                raise ConnectionError
            await many.gateways[0].kill()
            yield packed[3 << 20 :]

        async with raw(many) as http:
            with pytest.raises((httpx.HTTPError, ConnectionError)):
                await http.put(f"/v1/projects/{project_id}/archive", content=breaks_off())
        session = await there.create_session(project_id=project_id)
        assert await back(there, session.id) == ["README.md", "src"]
    packed_again = tmp_path / "again.tar.gz"
    packed_again.write_bytes(packed)
    async with asyncio.timeout(30):
        while True:  # until the worker has noticed that the gateway is dead
            with suppress(Conflict):
                assert (await there.upload(project_id, packed_again)).project.state == "ready"
                break


async def test_while_redis_is_away_it_is_unavailable_and_then_it_works(
    many: Many, redis: RedisServer
) -> None:
    await many.make(gateways=1, workers=1)
    client = await many.client()
    session = await client.create_session()
    await client.write_file(session.id, "kept", b"kept")
    await redis.kill()
    async with raw(many) as http:
        await refused(http.get(f"/v1/sessions/{session.id}/files"))
    await redis.start()
    assert await back(client, session.id) == ["kept"]

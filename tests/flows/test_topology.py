"""What `deploy/` describes, as processes of this machine: nginx before two gateways, two workers, Redis, PostgreSQL."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.nginx_server import Nginx, nginx
from tests.planted import PASSWORD
from tests.postgres_server import PostgresServer
from tests.redis_server import redis_server
from tests.servers import ADMIN, Log, says, served_by
from tests.unit.workspaces.archives import archive
from zene.client import AsyncClient
from zene.domain.events import FLEETING, Event

SECONDS = 60.0
SHELL = Call(name="shell", arguments={"command": "echo x >> log.txt; echo begun"})
PROJECT_BYTES = 3 << 20


@dataclass
class Installation:
    """What people see of it: one address."""

    many: Many
    front: Nginx
    client: AsyncClient


@pytest.fixture
async def installation(
    tmp_path: Path, model: ModelServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(tmp_path))
        database = await stack.enter_async_context(postgres.bare_database())
        variables = served_by(
            model,
            ZENE_BUS=redis.url,
            ZENE_STORE=postgres.url(database),
            ZENE_TRUSTED_PROXIES="127.0.0.1",
        )
        many = await stack.enter_async_context(Many(tmp_path, variables))
        await many.make(gateways=2, workers=2)
        ports = [urlsplit(gateway.name).port or 0 for gateway in many.gateways]
        folder = tmp_path / "nginx"
        await asyncio.to_thread(folder.mkdir)
        front = await stack.enter_async_context(nginx(folder, ports))
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "zene.crt"))
        client = await stack.enter_async_context(AsyncClient(front.url))
        many.person.tokens.append(await client.login(ADMIN, PASSWORD))
        yield Installation(many, front, client)


async def test_work_is_done_and_watched_through_the_load_balancer(
    installation: Installation, model: ModelServer
) -> None:
    words = Answer(text="one two three four five " * 20, delay_ms=20)
    model.scripts["*"] = Script(answers=[Answer(calls=[SHELL]), words])
    client = installation.client
    project = await client.create_project("Through nginx")
    packed = installation.many.home / "project.tar.gz"
    content = os.urandom(PROJECT_BYTES)
    await asyncio.to_thread(packed.write_bytes, archive({"large.bin": content}))
    assert (await client.upload(project.id, packed)).project.files == 1
    session = await client.create_session(project_id=project.id)
    task = await client.submit(session.id, "Go.")
    log = Log(client, session.id)
    await log.live(says("item.delta", kind="message", text="one"))
    assert (await client.task(task.id)).status == "running", "the stream was held back"
    assert (await log.finished(task.id))["outcome"] == "succeeded"
    await log.check()
    assert await client.read_file(session.id, "log.txt") == b"x\n"
    assert await client.read_file(session.id, "large.bin") == content


async def test_a_rolling_restart_loses_nothing_and_leaves_no_gap(
    installation: Installation, model: ModelServer
) -> None:
    model.scripts["*"] = Script(answers=[Answer(calls=[SHELL], delay_ms=20), Answer(text="Done.")])
    client, many = installation.client, installation.many
    session = await client.create_session()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        following = group.create_task(followed(client, session.id, tasks=6))
        for number in range(6):
            await client.submit(session.id, f"Number {number}")
            if number == 1:
                assert await many.gateways[0].stop() == 0
            if number == 3:
                assert await many.workers[0].stop() == 0
    seen = [event.seq for event in following.result() if event.type != "queue.changed"]
    assert seen == list(range(1, len(seen) + 1))
    log = Log(client, session.id)
    await log.check()
    assert [end["outcome"] for end in log.of("task.finished")] == ["succeeded"] * 6


async def test_what_is_unavailable_for_one_keeps_no_gateway_from_others(
    installation: Installation,
) -> None:
    session = await installation.client.create_session()
    token = installation.many.person.tokens[-1].access_token
    for worker in installation.many.workers:
        assert await worker.stop() == 0
    async with httpx.AsyncClient(
        base_url=installation.front.url,
        verify=installation.front.trusts,
        headers={"authorization": f"Bearer {token}"},
        timeout=SECONDS,
    ) as http:
        for _ in range(2):  # the second finds out what the first has made of the gateways
            reading = [http.get(f"/v1/sessions/{session.id}/files") for _ in range(4)]
            answers = await asyncio.gather(*reading)
            assert [each.status_code for each in answers] == [503] * 4
            assert {each.json()["code"] for each in answers} == {"unavailable"}
            others = [await http.get("/v1/me") for _ in range(4)]
            assert [each.status_code for each in others] == [200] * 4


async def test_plain_http_is_sent_to_the_secure_address(installation: Installation) -> None:
    async with httpx.AsyncClient() as plain:
        answer = await plain.get(f"{installation.front.plain_url}/v1/me")
    assert (answer.status_code, answer.headers["location"][:8]) == (308, "https://")


async def followed(client: AsyncClient, session_id: str, tasks: int) -> list[Event]:
    """The durable events of a session as they come, to the end of so many tasks."""
    seen: list[Event] = []
    async with aclosing(client.follow(session_id)) as events:
        async for event in events:
            if event.type in FLEETING:
                continue
            seen.append(event)
            if [each.type for each in seen].count("task.finished") == tasks:
                break
    return seen

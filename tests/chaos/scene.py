"""The installation under test: gateways and workers as processes, behind what can be cut, frozen and restarted."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.many import Many
from tests.model_server import Answer, Call, ModelServer, Script
from tests.planted import PASSWORD
from tests.postgres_server import PostgresServer
from tests.proxy import Proxy, proxy
from tests.redis_server import RedisServer, redis_server
from tests.servers import served_by
from zene.client import AsyncClient

GATEWAYS, WORKERS, PEOPLE = 2, 3, 4
CAP: Final = 2  # active tasks of one person
QUOTA: Final = 400_000  # tokens of the person who has few
POOR: Final = "poor"  # the model that only that person uses, so that the model server can count it
STEPS: Final = 2  # calls of each task


class Effects(Script, frozen=True):
    """Each step of a task leaves one line of its own in the workspace; the prompt has the task's number."""

    def answer(self, prompt: str, step: int) -> Answer:
        """The call that is due."""
        found = re.search(r"number (\d+)", prompt)
        if found is None or step >= STEPS:
            return Answer(text="All of it is done now. " * 4, delay_ms=5)
        line = f"{found[1]}-{step}"
        command = f"echo {line} >> log.txt; sleep 0.{int(found[1]) % 4}"
        return Answer(calls=[Call(name="shell", arguments={"command": command})], delay_ms=5)


@dataclass
class Scene:
    """What the people and the faults have to do with."""

    many: Many
    model: ModelServer
    postgres: PostgresServer
    database: str
    redis: RedisServer
    to_postgres: Proxy
    to_redis: Proxy
    random: random.Random
    clients: list[list[AsyncClient]]  # of each person, one for each gateway

    @property
    def poor(self) -> list[AsyncClient]:
        """The person with a quota."""
        return self.clients[-1]


@asynccontextmanager
async def staged(folder: Path, postgres: PostgresServer, seed: int) -> AsyncIterator[Scene]:
    """An installation that works, with people who are signed in."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer({"*": Effects()}))
        redis = await stack.enter_async_context(redis_server(folder))
        database = await stack.enter_async_context(postgres.bare_database())
        to_redis = await stack.enter_async_context(proxy(redis.port))
        to_postgres = await stack.enter_async_context(proxy(postgres.port))
        config = folder / "chaos.toml"
        await asyncio.to_thread(
            config.write_text, f'[models.{POOR}]\nprovider = "openai"\nmodel = "{POOR}"\n'
        )
        variables = served_by(
            model,
            ZENE_CONFIG=str(config),
            ZENE_BUS=f"redis://127.0.0.1:{to_redis.port}",
            ZENE_STORE=postgres.url(database, to_postgres.port),
            ZENE_MAX_ACTIVE_TASKS=str(CAP),
            ZENE_SLOTS="4",
        )
        many = await stack.enter_async_context(Many(folder, variables))
        await many.make(gateways=GATEWAYS, workers=WORKERS)
        clients = [await _signed_in(stack, many, number) for number in range(PEOPLE)]
        yield Scene(
            many, model, postgres, database, redis, to_postgres, to_redis, random.Random(seed), clients
        )  # fmt: skip


async def _signed_in(stack: AsyncExitStack, many: Many, number: int) -> list[AsyncClient]:
    admin = await many.client()
    email = f"person{number}@zene.example"
    user = await admin.create_user(email, PASSWORD)
    if number == PEOPLE - 1:
        await admin.change_user(user.id, quota={"tokens": QUOTA})
    clients = []
    for gateway in many.gateways:
        client = await stack.enter_async_context(AsyncClient(gateway.name))
        many.person.tokens.append(await client.login(email, PASSWORD))
        clients.append(client)
    return clients

"""A gateway as it runs, over HTTP on a free port: real SQLite store, memory bus, workspaces as plain folders."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from argon2 import PasswordHasher
from msgspec.structs import replace

from zene.bus.base import Bus, live
from zene.bus.memory import MemoryBus
from zene.client import AsyncClient
from zene.domain.events import Draft, Event
from zene.domain.ids import make_id
from zene.domain.users import Role, User
from zene.gateway.app import Application, create_app
from zene.gateway.listening import listening
from zene.gateway.parts import Outside, Terms
from zene.gateway.server import serving
from zene.gateway.shapes import Model
from zene.sandbox.bwrap import BubblewrapProvider
from zene.store import log, users
from zene.store.sqlite import SqliteStore
from zene.telemetry.metrics import Registry
from zene.worker.serving import Serving
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspaces

PASSWORD = "correct horse"
SECRET_KEY = b"the secret key of the tests"
TERMS = Terms(
    version="0.0",
    address="http://127.0.0.1",
    hosts=frozenset({"127.0.0.1"}),
    models=[Model(id="demo:", window=128_000), Model(id="openai:other")],
    requests_per_second=5000,
    request_burst=5000,
)
# What a stored hash costs is in the hash: these are checked in a millisecond.
_HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@dataclass
class Clock:
    """Milliseconds since 1970, moved by hand."""

    now: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@dataclass
class Told:
    """What the composition root would tell the gateway."""

    refusal: str | None = None


@dataclass
class Gateway:
    """What a test may reach into: the address, and what is behind it."""

    url: str
    app: Application
    store: SqliteStore
    bus: Bus
    outputs: Outputs
    clock: Clock
    told: Told
    registry: Registry
    _open: AsyncExitStack

    async def user(self, name: str, role: Role = Role.MEMBER) -> User:
        """Somebody with the password of the tests."""
        return await self.store.write(
            users.create_user,
            self.id("usr"),
            email(name),
            _HASHER.hash(PASSWORD),
            role,
            self.clock(),
        )

    async def client(self, name: str, role: Role = Role.MEMBER) -> AsyncClient:
        """A new user's client, signed in."""
        await self.user(name, role)
        return await self.signed_in(name)

    async def signed_in(self, name: str) -> AsyncClient:
        """One more client of a user, signed in."""
        client = await self._open.enter_async_context(AsyncClient(self.url))
        await client.login(email(name), PASSWORD)
        return client

    def id(self, prefix: str) -> str:
        return make_id(prefix, self.clock(), uuid.uuid4().bytes)

    async def append(
        self, session_id: str, drafts: Sequence[Draft], *, publish: bool = True
    ) -> list[Event]:
        """Events as a worker makes them; unpublished as when it dies after its commit."""
        events = await self.store.write(log.append, session_id, drafts, self.clock())
        if publish:
            await self.bus.publish(session_id, [live(event) for event in events])
        return events


def email(name: str) -> str:
    return f"{name}@zene.test"


@asynccontextmanager
async def running(
    folder: Path,
    *,
    with_sandbox: bool = False,
    bus: Bus | None = None,
    trusted_proxies: Sequence[str] = (),
    **terms: object,
) -> AsyncGenerator[Gateway, None]:
    """A gateway of its own, on a bus in memory unless it is given one. `terms` replace those of the tests; uploads and diffs need the sandbox."""
    async with AsyncExitStack() as stack:
        store = SqliteStore(f"sqlite:///{folder / 'zene.db'}")
        await store.migrate()
        stack.push_async_callback(store.close)
        sandboxes = BubblewrapProvider(
            installation=f"test-{uuid.uuid4().hex[:12]}", data_dir=folder
        )
        if with_sandbox:
            await sandboxes.start()
            stack.push_async_callback(sandboxes.close)
        workspaces = Workspaces(data_dir=folder, sandboxes=sandboxes, disk_bytes=None)
        await workspaces.start()
        stack.push_async_callback(workspaces.close)
        outputs = Outputs(folder / "outputs")
        stack.callback(outputs.close)
        bus, clock, told, registry = bus or MemoryBus(), Clock(), Told(), Registry()
        await stack.enter_async_context(_served(Serving(bus, workspaces, outputs)))
        app = create_app(
            store=store,
            bus=bus,
            secret_key=SECRET_KEY,
            terms=replace(TERMS, **terms),
            outside=Outside(
                clock=clock,
                users_refused=lambda: told.refusal,
                registry=registry,
            ),
        )
        listener = stack.enter_context(listening("127.0.0.1", 0))
        url = await stack.enter_async_context(
            serving(app, listener, trusted_proxies=trusted_proxies)
        )
        clients = await stack.enter_async_context(AsyncExitStack())
        yield Gateway(url, app, store, bus, outputs, clock, told, registry, clients)


@asynccontextmanager
async def _served(serving: Serving) -> AsyncGenerator[None, None]:
    """What a worker does for gateways."""
    task = asyncio.create_task(serving.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

"""The two that are compared, driven alike: a place to work, prepared beforehand, and tasks in it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from benchmarks.processes import Child, started
from zene.client import AsyncClient
from zene.domain.events import Event

TASK_SECONDS = 60.0
EMAIL, PASSWORD = "bench@example.org", "a password of the benchmark"

_MODEL = "bench"
_SETTLE_SECONDS = 30.0


class Timing(Struct, frozen=True):
    """Seconds from the submit to the first of the model's output at a follower, and to the end."""

    first: float
    whole: float


class Place(Protocol):
    """Where tasks run one after the other, with a follower attached."""

    async def task(self, prompt: str) -> Timing:
        """Run a task to its end. Raises TimeoutError, RuntimeError where it fails."""


class Contender(Protocol):
    """A server under measurement."""

    child: Child

    async def prepare(self) -> Place:
        """A new place, nothing run in it yet."""

    async def settle(self) -> None:
        """Give up all places and come to rest."""


class Bare:
    """The bare loop."""

    def __init__(self, child: Child, model_url: str, folder: Path) -> None:
        self.child = child
        self._request = {"model_url": model_url, "model": _MODEL, "cwd": str(folder)}
        self._places: list[_Line] = []

    async def prepare(self) -> "_Line":
        """A connection."""
        place = _Line(*await asyncio.open_connection("127.0.0.1", self.child.port), self._request)
        self._places.append(place)
        return place

    async def settle(self) -> None:
        """Close all connections."""
        while self._places:
            await self._places.pop().close()


class _Line:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, str]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request

    async def task(self, prompt: str) -> Timing:
        async with asyncio.timeout(TASK_SECONDS):
            began, first = time.perf_counter(), 0.0
            self._writer.write(json.dumps({**self._request, "prompt": prompt}).encode() + b"\n")
            while line := await self._reader.readline():
                first = first or time.perf_counter()
                if "done" in json.loads(line):
                    return Timing(first - began, time.perf_counter() - began)
        raise RuntimeError("the bare loop hung up")

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Zene:
    """Zene, by its own client."""

    def __init__(self, child: Child, client: AsyncClient) -> None:
        self.child = child
        self.client = client
        self._places: list[_Session] = []
        self._processes_at_rest = len(child.tree())

    async def prepare(self) -> "_Session":
        """A session with a follower that has seen its first event."""
        session = await self.client.create_session()
        place = _Session(self.client, session.id)
        await place.attach()
        self._places.append(place)
        return place

    async def settle(self) -> None:
        """Delete all sessions, and wait until their sandboxes are gone."""
        while self._places:
            await self._places.pop().close()
        ends = time.monotonic() + _SETTLE_SECONDS
        while len(self.child.tree()) > self._processes_at_rest:
            await asyncio.sleep(0.1)
            if time.monotonic() > ends:
                raise RuntimeError("sandboxes of deleted sessions do not end")


class _Session:
    def __init__(self, client: AsyncClient, session_id: str) -> None:
        self._client = client
        self._id = session_id
        self._events = client.follow(session_id)

    async def attach(self) -> None:
        await anext(self._events)

    async def task(self, prompt: str) -> Timing:
        async with asyncio.timeout(TASK_SECONDS), asyncio.TaskGroup() as group:
            began = time.perf_counter()
            group.create_task(self._client.submit(self._id, prompt))
            return await self._watch(began)

    async def close(self) -> None:
        await self._events.aclose()
        await self._client.delete_session(self._id)

    async def _watch(self, began: float) -> Timing:
        first = 0.0
        async for event in self._events:
            if not first and _is_output(event):
                first = time.perf_counter()
            if event.type == "task.finished":
                if json.loads(bytes(event.data))["outcome"] != "succeeded":
                    raise RuntimeError(f"a task failed: {bytes(event.data).decode()}")
                return Timing(first - began, time.perf_counter() - began)
        raise RuntimeError("the session was deleted")


def _is_output(event: Event) -> bool:
    """Whether it shows something that the model said."""
    if event.type not in {"item.delta", "item.completed"}:
        return False
    shown = json.loads(bytes(event.data))
    return shown["kind"] == "message" and bool(shown["text"])


@asynccontextmanager
async def bare_loop(model_url: str, folder: Path) -> AsyncGenerator[Bare, None]:
    """A bare loop that has just started."""
    async with started(["benchmarks.bare"], log=folder / "bare.log") as child:
        bare = Bare(child, model_url, folder)
        yield bare
        await bare.settle()


@asynccontextmanager
async def zene_up(model_url: str, folder: Path) -> AsyncGenerator[Zene, None]:
    """`zene up` that has just started on a data folder, and a client that is signed in."""
    environment = {
        "ZENE_DATA_DIR": str(folder / "data"),
        "ZENE_ADMIN_EMAIL": EMAIL,
        "ZENE_ADMIN_PASSWORD": PASSWORD,
        "ZENE_MODEL": f"openai:{_MODEL}",
        "ZENE_MAX_ACTIVE_TASKS": "100",
        "OPENAI_API_KEY": "bench",
        "OPENAI_BASE_URL": model_url,
    }
    command = ["zene", "up", "--port", "0"]
    async with AsyncExitStack() as stack:
        child = await stack.enter_async_context(
            started(command, log=folder / "zene.log", environment=environment)
        )
        url = f"http://127.0.0.1:{child.port}"
        client = await stack.enter_async_context(AsyncClient(url))
        await client.login(EMAIL, PASSWORD)
        yield Zene(child, client)

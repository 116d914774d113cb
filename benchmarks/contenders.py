"""The two that are compared, driven alike: a place to work, prepared beforehand, and tasks in it."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from benchmarks.processes import Child, started
from zene.client import AsyncClient
from zene.domain.events import Event

TASK_SECONDS = 60.0
EMAIL, PASSWORD = "bench@example.org", "a password of the benchmark"

_MODEL = "bench"
_SETTLE_SECONDS = 30.0
_LONGEST_LINE = 1 << 20

_decoder = msgspec.json.Decoder(Event)


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
    """Zene: its own client makes and deletes sessions, and tasks go over sockets that are open already, as
    those of the bare loop do. What an HTTP client takes is no part of a server.
    """

    def __init__(self, child: Child, client: AsyncClient, token: str) -> None:
        self.child = child
        self.client = client
        self._token = token
        self._places: list[_Session] = []
        self._processes_at_rest = len(child.tree())

    async def prepare(self) -> "_Session":
        """A session with a follower that has seen its first event."""
        session = await self.client.create_session()
        place = _Session(self.client, session.id, self._token)
        await place.attach(self.child.port)
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
    _asking: "_Socket"
    _following: "_Socket"

    def __init__(self, client: AsyncClient, session_id: str, token: str) -> None:
        self._client = client
        self._id = session_id
        self._token = token

    async def attach(self, port: int) -> None:
        self._asking, self._following = await _connected(port), await _connected(port)
        self._send(self._following, "GET", "stream")
        await self._event()

    async def task(self, prompt: str) -> Timing:
        body = json.dumps({"prompt": prompt}).encode()
        async with asyncio.timeout(TASK_SECONDS):
            began = time.perf_counter()
            self._send(self._asking, "POST", "tasks", body)
            timing = await self._watch(began)
            await self._accepted()
            return timing

    async def close(self) -> None:
        for one in (self._asking, self._following):
            await one.close()
        await self._client.delete_session(self._id)

    def _send(self, over: "_Socket", method: str, what: str, body: bytes = b"") -> None:
        head = (
            f"{method} /v1/sessions/{self._id}/{what} HTTP/1.1\r\nhost: localhost\r\n"
            f"authorization: Bearer {self._token}\r\nidempotency-key: {secrets.token_hex(8)}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        over.writer.write(head.encode() + body)

    async def _accepted(self) -> None:
        """Read the answer to the submit."""
        head = await self._asking.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202 "):
            raise RuntimeError(f"a task was not accepted: {head.decode()}")
        lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
        length = next(int(value) for name, _, value in lines if name == b"content-length")
        await self._asking.reader.readexactly(length)

    async def _watch(self, began: float) -> Timing:
        first = 0.0
        while True:
            event = await self._event()
            if not first and _is_output(event):
                first = time.perf_counter()
            if event.type == "task.finished":
                if json.loads(bytes(event.data))["outcome"] != "succeeded":
                    raise RuntimeError(f"a task failed: {bytes(event.data).decode()}")
                return Timing(first - began, time.perf_counter() - began)

    async def _event(self) -> Event:
        """The next one: a line, since the server sends whole frames in each of HTTP's chunks."""
        while line := await self._following.reader.readline():
            if line.startswith(b"data: "):
                return _decoder.decode(line[6:])
        raise RuntimeError("the stream of a session ended")


class _Socket(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def _connected(port: int) -> _Socket:
    return _Socket(*await asyncio.open_connection("127.0.0.1", port, limit=_LONGEST_LINE))


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
        tokens = await client.login(EMAIL, PASSWORD)
        yield Zene(child, client, tokens.access_token)

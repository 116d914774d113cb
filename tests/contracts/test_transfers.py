"""Requests that workers answer with bytes both ways, on every bus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, redis_server
from zene.bus.base import (
    ASK_SECONDS,
    MOST_TRANSFERS,
    REQUEST_BYTES,
    WINDOW_BYTES,
    Bus,
    Transfer,
)
from zene.domain.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SandboxUnavailable,
    TooLarge,
    TooMany,
    Unavailable,
    ZeneError,
)
from zene.seams import backend

BACKENDS = ("memory", "redis", "redis in one process")
WAIT = 20.0
Answer = Callable[[bytes, Transfer], Awaitable[None]]


class Place:
    """Gateways and workers on one bus; those of a bus in memory are one process."""

    def __init__(self, kind: str, server: RedisServer | None, stack: AsyncExitStack) -> None:
        self._kind = kind
        self._stack = stack
        self._one: Bus | None = None
        self.server = server

    async def bus(self) -> Bus:
        """A process of its own, where the bus is for many."""
        if self._one is not None and self._kind != "redis":
            return self._one
        url = self.server.url if self.server else "memory://"
        bus: Bus = backend("bus", url)(url, "one")
        self._one = bus
        await bus.start()
        self._stack.push_async_callback(bus.close)
        return bus

    async def worker(self) -> Bus:
        """A worker's bus; each has one of its own on Redis."""
        if self._kind == "redis in one process":
            self._one = None
        return await self.bus()


@pytest.fixture(params=BACKENDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack, asyncio.timeout(120):
        server = None
        if request.param != "memory":
            server = await stack.enter_async_context(redis_server(tmp_path))
        yield Place(request.param, server, stack)


@pytest.fixture
async def gateway(place: Place) -> Bus:
    return await place.bus()


@pytest.fixture
async def worker(place: Place, gateway: Bus) -> Bus:
    return await place.bus()


@asynccontextmanager
async def answering(
    bus: Bus, answer: Answer, *, holds: Callable[[str], bool] = lambda _: False
) -> AsyncIterator[None]:
    """A worker that answers all requests at once, as told; an error of it is told as it is."""

    async def one(request: bytes, transfer: Transfer) -> None:
        try:
            await answer(request, transfer)
            transfer.end()
        except ZeneError as err:
            transfer.fail(err)
        finally:
            transfer.close()

    async def all_of_them(ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group, bus.asked(holds) as asked:
            ready.set()
            async for each in asked:
                group.create_task(one(each.request, each.transfer))

    ready = asyncio.Event()
    working = asyncio.create_task(all_of_them(ready))
    await ready.wait()
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def echo(request: bytes, transfer: Transfer) -> None:
    """Answer with the request and all that follows."""
    await transfer.send(request)
    while piece := await transfer.receive():
        await transfer.send(piece)


async def whole(transfer: Transfer) -> bytes:
    pieces = []
    while (piece := await transfer.receive()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


async def asks(bus: Bus, request: bytes, about: str = "ses_1") -> bytes:
    """The whole answer to a request without more."""
    async with bus.ask(request, about=about) as transfer:
        transfer.end()
        return await whole(transfer)


async def test_bytes_go_both_ways_in_order_and_whole(gateway: Bus, worker: Bus) -> None:
    sent = [bytes([number]) * (number * 997) for number in range(1, 100)]
    async with answering(worker, echo), gateway.ask(b"?", about="ses_1") as transfer:

        async def send() -> None:
            for piece in sent:
                await transfer.send(piece)
            transfer.end()

        _, answer = await asyncio.gather(send(), whole(transfer))
    assert answer == b"?" + b"".join(sent)


async def test_an_answer_may_have_no_bytes(gateway: Bus, worker: Bus) -> None:
    async def nothing(_request: bytes, transfer: Transfer) -> None:
        assert await transfer.receive() is None

    async with answering(worker, nothing):
        assert await asks(gateway, b"?") == b""


@pytest.mark.parametrize("way", ["up", "down"])
async def test_64_mib_come_through(gateway: Bus, worker: Bus, way: str) -> None:
    piece, count = bytes(range(256)) * 1024, 256

    async def answer(request: bytes, transfer: Transfer) -> None:
        digest = sha256()
        while arrived := await transfer.receive():
            digest.update(arrived)
        await transfer.send(digest.digest())
        if request == b"down":
            for _ in range(count):
                await transfer.send(piece)

    async with answering(worker, answer), gateway.ask(way.encode(), about="ses_1") as transfer:
        if way == "up":
            for _ in range(count):
                await transfer.send(piece)
        transfer.end()
        answered, size = sha256(), 0
        while (arrived := await transfer.receive()) is not None:
            size += len(arrived)
            answered.update(arrived)
    expected = sha256(piece * count).digest()
    if way == "up":
        assert answered.digest() == sha256(expected).digest()
    else:
        assert size == 32 + (64 << 20)
        assert answered.digest() == sha256(sha256().digest() + piece * count).digest()


async def test_a_reader_that_does_not_read_stops_the_sender_at_the_window(
    gateway: Bus, worker: Bus
) -> None:
    sent = 0

    async def endless(request: bytes, transfer: Transfer) -> None:
        nonlocal sent
        while request == b"endless":
            await transfer.send(b"x" * 4096)
            sent += 4096

    async with answering(worker, endless), gateway.ask(b"endless", about="ses_1") as transfer:
        for taken in range(5):
            while sent < WINDOW_BYTES:
                await asks(gateway, b"else")
            for _ in range(20):  # what takes its time: others go on
                await asks(gateway, b"else")
            assert sent <= WINDOW_BYTES + taken * 4096
            assert await transfer.receive() == b"x" * 4096


async def test_a_slow_reader_gets_all_of_it(gateway: Bus, worker: Bus) -> None:
    async def numbers(request: bytes, transfer: Transfer) -> None:
        for number in range(300 if request == b"all" else 0):
            await transfer.send(number.to_bytes(2, "big") * 1024)

    async with answering(worker, numbers), gateway.ask(b"all", about="ses_1") as transfer:
        came = b""
        while (piece := await transfer.receive()) is not None:
            came += piece
            await asks(gateway, b"else")
    assert came == b"".join(number.to_bytes(2, "big") * 1024 for number in range(300))


async def test_who_sends_learns_that_the_reader_has_left(gateway: Bus, worker: Bus) -> None:
    lost = asyncio.Event()
    raised: asyncio.Future[ZeneError] = asyncio.get_running_loop().create_future()

    async def endless(_request: bytes, transfer: Transfer) -> None:
        transfer.when_lost(lost.set)
        try:
            while True:
                await transfer.send(b"x" * 4096)
        except Unavailable as err:
            raised.set_result(err)

    async with answering(worker, endless):
        async with gateway.ask(b"?", about="ses_1") as transfer:
            assert await transfer.receive()
        async with asyncio.timeout(WAIT):
            await lost.wait()
            assert isinstance(await raised, Unavailable)


async def test_an_upload_that_breaks_off_is_never_taken_for_whole(
    gateway: Bus, worker: Bus
) -> None:
    ended: asyncio.Future[bytes | ZeneError] = asyncio.get_running_loop().create_future()
    began = asyncio.Event()

    async def take(_request: bytes, transfer: Transfer) -> None:
        began.set()
        try:
            ended.set_result(await whole(transfer))
        except Unavailable as err:
            ended.set_result(err)

    async with answering(worker, take):
        async with gateway.ask(b"?", about="ses_1") as transfer:
            await transfer.send(b"half")
            await began.wait()
        async with asyncio.timeout(WAIT):
            assert isinstance(await ended, Unavailable)


async def test_an_answer_that_breaks_off_is_never_taken_for_whole(
    place: Place, gateway: Bus
) -> None:
    worker = await place.bus()
    began = asyncio.Event()

    async def half(_request: bytes, transfer: Transfer) -> None:
        await transfer.send(b"half")
        began.set()
        await transfer.receive()

    async with gateway_asks_one_that_ends(gateway, worker, half, began) as transfer:
        with pytest.raises(Unavailable, match="worker is stopping"):
            await whole(transfer)


@asynccontextmanager
async def gateway_asks_one_that_ends(
    gateway: Bus, worker: Bus, answer: Answer, began: asyncio.Event
) -> AsyncIterator[Transfer]:
    async with AsyncExitStack() as working:
        await working.enter_async_context(answering(worker, answer))
        async with gateway.ask(b"?", about="ses_1") as transfer:
            await began.wait()
            await working.aclose()
            yield transfer


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("no", code="bad_path", details={"path": "../x", "at": [1, None]}),
        InvalidInput("no archive", code="unsupported_media_type", status=415),
        NotFound("gone"),
        TooLarge("big", details={"limit": 5}),
        Conflict("another", code="upload_in_progress"),
        TooMany("later", retry_after=7),
        Unavailable("full", code="disk_full", retry_after=60),
        SandboxUnavailable("none"),
    ],
)
async def test_an_error_comes_out_as_it_was_raised(
    gateway: Bus, worker: Bus, error: ZeneError
) -> None:
    async def refuse(_request: bytes, _transfer: Transfer) -> None:
        raise error

    async with answering(worker, refuse):
        with pytest.raises(type(error)) as raised:
            await asks(gateway, b"?")
        async with gateway.ask(b"?", about="ses_1") as transfer:
            with pytest.raises(type(error)):  # also for one who sends and does not look
                await transfer.send(b"x" * (WINDOW_BYTES + 1))
    assert type(raised.value) is type(error)
    for name in ("code", "message", "status", "details", "retry_after"):
        assert getattr(raised.value, name) == getattr(error, name)


async def test_without_a_worker_it_is_unavailable_in_time(gateway: Bus) -> None:
    async with asyncio.timeout(ASK_SECONDS + 0.5):
        with pytest.raises(Unavailable) as raised:
            await asks(gateway, b"?")
    assert raised.value.retry_after


async def test_a_worker_that_comes_in_time_is_asked(gateway: Bus, worker: Bus) -> None:
    asking = asyncio.create_task(asks(gateway, b"soon"))
    await asyncio.sleep(0)
    async with answering(worker, echo):
        assert await asking == b"soon"


async def test_a_worker_that_has_stopped_is_not_asked(place: Place, gateway: Bus) -> None:
    async with answering(await place.bus(), echo):
        assert await asks(gateway, b"?") == b"?"
    with pytest.raises(Unavailable):
        await asks(gateway, b"?")


async def test_of_many_workers_one_answers_and_the_one_that_holds_it_first(place: Place) -> None:
    counts = {"one": 0, "two": 0, "three": 0}

    def named(name: str) -> Answer:
        async def answer(_request: bytes, transfer: Transfer) -> None:
            counts[name] += 1
            await transfer.send(name.encode())

        return answer

    gateway, other = await place.bus(), await place.bus()
    async with AsyncExitStack() as working:
        for name in counts:
            worker = await place.worker()
            holds = name.__eq__
            await working.enter_async_context(answering(worker, named(name), holds=holds))
        for name in counts:
            assert await asks(gateway, b"?", name) == name.encode()
        assert set(counts.values()) == {1}
        for about in (f"ses_{number}" for number in range(20)):
            assert await asks(gateway, b"?", about) == await asks(other, b"?", about)
    assert sum(counts.values()) == 43


async def test_a_hundred_at_once(gateway: Bus, worker: Bus) -> None:
    async def one(number: int) -> None:
        sent = number.to_bytes(1, "big") * (3 * WINDOW_BYTES)
        async with gateway.ask(b"", about=f"ses_{number}") as transfer:

            async def send() -> None:
                await transfer.send(sent)
                transfer.end()

            _, answer = await asyncio.gather(send(), whole(transfer))
        assert answer == sent

    async with answering(worker, echo):
        await asyncio.gather(*map(one, range(100)))


async def test_too_many_at_once_are_refused(gateway: Bus, worker: Bus) -> None:
    async def wait(_request: bytes, transfer: Transfer) -> None:
        await transfer.receive()

    async with answering(worker, wait), AsyncExitStack() as asking:
        for _ in range(MOST_TRANSFERS):
            await asking.enter_async_context(gateway.ask(b"?", about="ses_1"))
        with pytest.raises(Unavailable, match="Too many"):
            await asks(gateway, b"?")


async def test_a_request_is_bounded(gateway: Bus, worker: Bus) -> None:
    async with answering(worker, echo):
        assert await asks(gateway, b"x" * REQUEST_BYTES) == b"x" * REQUEST_BYTES
        with pytest.raises(InvalidInput):
            await asks(gateway, b"x" * (REQUEST_BYTES + 1))


@pytest.mark.parametrize("who", ["asks", "answers"])
async def test_one_that_is_not_read_or_not_fed_expires_on_both_sides(
    gateway: Bus, worker: Bus, who: str
) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer(_request: bytes, transfer: Transfer) -> None:
        try:
            if who == "answers":
                await transfer.send(b"x" * (WINDOW_BYTES + 1), 0.2)
            else:
                await transfer.receive()
        except Unavailable as err:
            ended.set_result(err.message)

    async with answering(worker, answer), gateway.ask(b"?", about="ses_1") as transfer:
        if who == "asks":
            with pytest.raises(Unavailable, match="Nothing was transferred"):
                await transfer.receive(0.2)
        async with asyncio.timeout(WAIT):
            assert "Nothing was transferred" in await ended
        with pytest.raises(Unavailable, match="Nothing was transferred"):
            await whole(transfer)

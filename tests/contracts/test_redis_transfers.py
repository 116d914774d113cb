"""What happens to transfers when something happens to Redis, or to a process at one end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.test_redis_faults import NOTICED
from tests.contracts.test_transfers import answering, asks, echo, whole
from tests.proxy import proxy
from tests.redis_server import RedisServer, redis_server
from zene.bus.base import WINDOW_BYTES, Transfer
from zene.bus.redis import RedisBus, open_bus
from zene.bus.resp import address, connect
from zene.domain.errors import Unavailable, ZeneError


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as running, asyncio.timeout(120):
        yield running


@pytest.fixture
async def gateway(server: RedisServer) -> AsyncIterator[RedisBus]:
    bus = open_bus(server.url, "one")
    await bus.start()
    yield bus
    await bus.close()


@pytest.fixture
async def worker(server: RedisServer) -> AsyncIterator[RedisBus]:
    bus = open_bus(server.url, "one")
    await bus.start()
    yield bus
    await bus.close()


class Endless:
    """A worker's answer that goes on as long as it is read, and how it ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[ZeneError] = asyncio.get_running_loop().create_future()

    async def __call__(self, request: bytes, transfer: Transfer) -> None:
        try:
            while request == b"endless":
                await transfer.send(b"x" * 4096)
        except ZeneError as err:
            self.ended.set_result(err)


@pytest.mark.parametrize("fault", ["restarted", "publishing killed", "subscriptions killed"])
async def test_a_loss_of_redis_is_an_error_on_both_sides_and_then_it_works_again(
    server: RedisServer, gateway: RedisBus, worker: RedisBus, fault: str
) -> None:
    endless = Endless()
    async with answering(worker, endless), asyncio.timeout(3 * NOTICED):
        async with gateway.ask(b"endless", about="ses_1") as transfer:
            assert await transfer.receive()
            if fault == "restarted":
                await server.restart()
            else:
                kind = "normal" if fault == "publishing killed" else "pubsub"
                await server.ask("CLIENT", "KILL", "TYPE", kind)
            with pytest.raises(Unavailable):
                await whole(transfer)
        assert isinstance(await endless.ended, Unavailable)
        while True:
            try:
                assert await asks(gateway, b"else") == b""
            except Unavailable:
                continue
            break


async def test_a_flush_is_not_noticed_and_a_full_redis_is_enough(
    server: RedisServer, gateway: RedisBus, worker: RedisBus
) -> None:
    async with answering(worker, echo), gateway.ask(b"?", about="ses_1") as transfer:
        await server.ask("FLUSHALL")
        await server.ask("CONFIG", "SET", "maxmemory", 1)
        await transfer.send(b"x" * WINDOW_BYTES)
        transfer.end()
        assert await whole(transfer) == b"?" + b"x" * WINDOW_BYTES
        assert await asks(gateway, b"another") == b"another"


async def test_nothing_of_a_file_is_kept_in_redis_and_what_is_kept_expires(
    server: RedisServer, gateway: RedisBus, worker: RedisBus
) -> None:
    async with answering(worker, echo), gateway.ask(b"?", about="ses_1") as transfer:
        await transfer.send(b"x" * (WINDOW_BYTES // 2))
        keys = await server.ask("KEYS", "*")
        assert all(key.startswith(b"zene:one:") and key.endswith(b":mark") for key in keys)
        for key in keys:
            assert await server.ask("TTL", key.decode()) > 0
        transfer.end()
        await whole(transfer)


async def test_a_frozen_redis_is_an_error_in_time(
    server: RedisServer, gateway: RedisBus, worker: RedisBus
) -> None:
    endless = Endless()
    async with answering(worker, endless), asyncio.timeout(3 * NOTICED):
        async with gateway.ask(b"endless", about="ses_1") as transfer:
            assert await transfer.receive()
            server.freeze()
            with pytest.raises(Unavailable):
                await whole(transfer)
            with pytest.raises(Unavailable):
                await asks(gateway, b"else")
        server.thaw()
        assert isinstance(await endless.ended, Unavailable)


async def test_without_redis_it_is_unavailable_in_time(
    server: RedisServer, gateway: RedisBus, worker: RedisBus
) -> None:
    async with answering(worker, echo):
        assert await asks(gateway, b"?") == b"?"
        await server.kill()
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable) as raised:
                await asks(gateway, b"?")
        assert raised.value.retry_after


async def test_who_waits_for_a_side_that_is_cut_off_learns_it(
    server: RedisServer, gateway: RedisBus
) -> None:
    """As when a machine loses its network: the worker says nothing, not even that it leaves."""

    async def silent(request: bytes, transfer: Transfer) -> None:
        await transfer.send(request)
        await transfer.receive()

    async with proxy(server.port) as between:
        worker = open_bus(f"redis://127.0.0.1:{between.port}", "one")
        await worker.start()
        async with (
            answering(worker, silent),
            asyncio.timeout(2 * NOTICED),
            gateway.ask(b"?", about="ses_1") as transfer,
        ):
            assert await transfer.receive() == b"?"
            between.cut()
            with pytest.raises(Unavailable, match="gone"):
                await transfer.receive()
        await worker.close()


async def test_what_nobody_understands_is_left_aside(
    server: RedisServer, gateway: RedisBus, worker: RedisBus, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await connect(address(server.url))
    async with answering(worker, echo):
        assert await asks(gateway, b"?") == b"?"
        for message in (b"", b"\xc1", b"\x93\xa3Ask\xa1a\x01", b"\x92\xa5Alive\xa4none"):
            await connection.call("PUBLISH", "zene:one:files:asks", message)
        assert await asks(gateway, b"?") == b"?"
    assert caplog.messages.count("transfers.not_understood") == 3
    connection.drop("done")

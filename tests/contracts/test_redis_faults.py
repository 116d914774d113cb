"""Whatever happens to Redis is a delay or an error that says what to do; the store has everything."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.contracts.test_bus import WAIT, delta, event, fleeting, texts_so_far
from tests.proxy import proxy
from tests.redis_server import RedisServer, redis_server
from zene.bus.base import Signal
from zene.bus.link import BEAT_SECONDS, REPLY_SECONDS
from zene.bus.redis import RedisBus, open_bus
from zene.bus.resp import OUTGOING_BYTES

NOTICED = BEAT_SECONDS + REPLY_SECONDS + 10  # seconds in which a loss is noticed on a busy machine


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def bus(server: RedisServer) -> AsyncIterator[RedisBus]:
    opened = open_bus(server.url, "one")
    await opened.start()
    yield opened
    await opened.close()


async def lost(bus: RedisBus, before: int = 0) -> None:
    """Wait until the bus says that it may have lost something, more often than before."""
    async with asyncio.timeout(NOTICED):
        while bus.losses <= before:
            await bus.wakened(0.02)


async def test_followers_are_told_when_redis_is_back_and_go_on(
    server: RedisServer, bus: RedisBus
) -> None:
    async with bus.subscribe("ses_1") as before:
        await bus.publish("ses_1", [event(1)])
        assert await before.next(WAIT) == event(1)
        await server.kill()
        await bus.publish("ses_1", [event(2)])
        async with bus.subscribe("ses_1") as meanwhile:
            await bus.publish("ses_1", [event(3)])
            await server.start()
            for follower in (before, meanwhile):
                assert await follower.next(NOTICED) is None
                assert (follower.ended, follower.lagged) == (True, True)
        async with bus.subscribe("ses_1") as after:
            await bus.publish("ses_1", [event(4)])
            assert await after.next(WAIT) == event(4)
        assert bus.losses == 1


async def test_workers_of_the_same_process_hear_everything_while_redis_is_away(
    server: RedisServer, bus: RedisBus
) -> None:
    await bus.wakened(0)
    await server.kill()
    async with bus.signals() as signals, asyncio.timeout(WAIT):
        await bus.signal(Signal(kind="cancel", session_id="ses_1"))
        assert (await anext(signals)).session_id == "ses_1"
    await bus.wake()
    assert await bus.wakened(0)


async def test_workers_look_into_the_store_when_redis_is_back(
    server: RedisServer, bus: RedisBus
) -> None:
    await bus.wakened(0)
    await server.restart()
    assert await bus.wakened(NOTICED)


async def test_nobody_is_kept_waiting_while_redis_is_away(
    server: RedisServer, bus: RedisBus, caplog: pytest.LogCaptureFixture
) -> None:
    await server.kill()
    await away(caplog)
    async with asyncio.timeout(WAIT), bus.subscribe("ses_1"):
        for seq in range(10_000):
            await bus.publish("ses_1", [event(seq)])
        await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
        assert await bus.drafts("ses_1") == []


async def away(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the bus has said that Redis is away."""
    async with asyncio.timeout(NOTICED):
        while "bus.away" not in caplog.messages:
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.02)


async def test_a_text_that_was_flushed_is_published_anew_by_who_holds_it(
    server: RedisServer, bus: RedisBus
) -> None:
    await bus.publish_delta("ses_1", delta("Hello ", 0), fleeting(4))
    await bus.drafts("ses_1")
    await server.ask("FLUSHALL")
    await bus.publish_delta("ses_1", delta("wor", 6), fleeting(4))
    await lost(bus)
    assert await server.ask("KEYS", "*:text:*") == []
    await bus.publish_delta("ses_1", delta("Hello wor", 0), fleeting(4))
    await bus.publish_delta("ses_1", delta("ld", 9), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "Hello world")}


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_a_connection_that_was_killed_is_made_anew(
    server: RedisServer, bus: RedisBus, kind: str
) -> None:
    async with bus.subscribe("ses_1") as follower:
        await server.ask("CLIENT", "KILL", "TYPE", kind)
        assert await follower.next(NOTICED) is None
        assert follower.lagged
    async with bus.subscribe("ses_1") as follower:
        await bus.publish("ses_1", [event(1)])
        assert await follower.next(WAIT) == event(1)


async def test_a_redis_that_hangs_stops_nobody_and_what_waits_for_it_is_bounded(
    server: RedisServer, bus: RedisBus, caplog: pytest.LogCaptureFixture
) -> None:
    big = replace(event(1), body=b"x" * (1 << 20))
    async with bus.subscribe("ses_1") as follower:
        server.freeze()
        began = time.monotonic()
        for _ in range(4 * (OUTGOING_BYTES >> 20)):
            await bus.publish("ses_1", [big])
            await asyncio.sleep(0)
        assert "bus.missed" in caplog.messages
        await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
        assert await bus.drafts("ses_1") == []
        async with bus.subscribe("ses_2"):
            pass
        assert time.monotonic() - began < WAIT
        await away(caplog)
        server.thaw()
        while await follower.next(NOTICED):
            pass
        assert follower.lagged
    async with bus.subscribe("ses_1") as follower:
        await bus.publish("ses_1", [event(2)])
        assert await follower.next(WAIT) == event(2)


async def test_a_subscription_that_hangs_alone_is_noticed(server: RedisServer) -> None:
    """As behind a firewall that forgot one of the connections."""
    async with proxy(server.port) as between:
        bus = open_bus(f"redis://127.0.0.1:{between.port}", "one")
        await bus.start()
        async with bus.subscribe("ses_1") as follower:
            between.silence(1)
            await bus.publish("ses_1", [event(1)])
            assert await follower.next(NOTICED) is None
            assert follower.lagged
        async with bus.subscribe("ses_1") as follower:
            await bus.publish("ses_1", [event(2)])
            assert await follower.next(WAIT) == event(2)
        await bus.close()


async def test_a_full_redis_goes_on_publishing_and_keeps_texts_again_when_there_is_room(
    server: RedisServer, bus: RedisBus, caplog: pytest.LogCaptureFixture
) -> None:
    await server.ask("CONFIG", "SET", "maxmemory", 1)
    async with bus.subscribe("ses_1") as follower:
        for offset in range(0, 500, 5):
            await bus.publish_delta("ses_1", delta("Hello", offset), fleeting(4))
            assert await follower.next(WAIT) == fleeting(4)
        assert await bus.drafts("ses_1") == []
        said = [record for record in caplog.records if record.message == "bus.missed"]
        assert 1 <= len(said) <= 3
        before = bus.losses
        await server.ask("CONFIG", "SET", "maxmemory", 0)
        await lost(bus, before)
        await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
        assert await texts_so_far(bus) == {"itm_1": (0, "Hello")}
        assert not follower.ended


async def test_a_redis_that_becomes_a_replica_is_left_until_it_is_a_primary_again(
    server: RedisServer, bus: RedisBus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.subscribe("ses_1") as follower:
        await server.ask("REPLICAOF", "127.0.0.1", 1)
        await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
        await away(caplog)
        await server.ask("REPLICAOF", "NO", "ONE")
        while await follower.next(NOTICED):
            pass
        assert follower.lagged
    await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "Hello")}


async def test_what_nobody_understands_is_left_out(server: RedisServer, bus: RedisBus) -> None:
    async with bus.subscribe("ses_1") as follower, bus.signals() as signals:
        await server.ask("PUBLISH", "zene:one:live:ses_1", "garbage")
        await server.ask("PUBLISH", "zene:one:workers", "garbage")
        await bus.publish("ses_1", [event(1)])
        assert await follower.next(WAIT) == event(1)
        await bus.signal(Signal(kind="cancel", session_id="ses_1"))
        assert (await anext(signals)).kind == "cancel"
    await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
    await bus.drafts("ses_1")
    await server.ask("RPUSH", "zene:one:text:ses_1:itm_1", "garbage")
    assert await texts_so_far(bus) == {"itm_1": (0, "Hello")}


async def test_where_a_key_is_of_another_kind_no_text_is_known(
    server: RedisServer, bus: RedisBus
) -> None:
    await server.ask("SET", "zene:one:open:ses_1", "x", "EX", 60)
    assert await bus.drafts("ses_1") == []


async def test_the_last_events_are_sent_before_it_is_closed(server: RedisServer) -> None:
    here, there = open_bus(server.url, "one"), open_bus(server.url, "one")
    await asyncio.gather(here.start(), there.start())
    async with there.subscribe("ses_1") as follower:
        for seq in range(1, 101):
            await here.publish("ses_1", [event(seq)])
        await here.close()
        for seq in range(1, 101):
            assert await follower.next(WAIT) == event(seq)
    await there.close()

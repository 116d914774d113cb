"""What a bus of many processes must do on top: two of them on one backend behave as one bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contracts.test_bus import WAIT, delta, event, fleeting, names, texts_so_far, worker
from tests.redis_server import RedisServer, redis_server
from zene.bus.base import REVOKED, Bus, Signal
from zene.domain.errors import Unavailable
from zene.seams import backend


class Two(NamedTuple):
    """Two processes of one installation, and one of another."""

    one: Bus
    other: Bus
    stranger: Bus
    server: RedisServer


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server(tmp_path))

        async def started(installation: str) -> Bus:
            bus: Bus = backend("bus", server.url)(server.url, installation)
            await bus.start()
            stack.push_async_callback(bus.close)
            return bus

        yield Two(await started("mine"), await started("mine"), await started("theirs"), server)


async def test_an_event_reaches_followers_of_every_process_once(two: Two) -> None:
    async with two.one.subscribe("ses_1") as here, two.other.subscribe("ses_1") as there:
        await two.one.publish("ses_1", [event(1), event(2)])
        for follower in (here, there):
            assert await follower.next(WAIT) == event(1)
            assert await follower.next(WAIT) == event(2)
            assert await follower.next(0.01) is None


async def test_any_process_knows_the_text_so_far(two: Two) -> None:
    async with two.other.subscribe("ses_1") as follower:
        await two.one.publish_delta("ses_1", delta("Hello ", 0), fleeting(4))
        await two.one.publish_delta("ses_1", delta("world", 6), fleeting(4))
        await follower.next(WAIT)
        await follower.next(WAIT)
        assert await texts_so_far(two.other) == {"itm_1": (0, "Hello world")}


async def test_any_process_can_go_on_with_a_text_and_complete_it(two: Two) -> None:
    async with two.one.subscribe("ses_1") as follower:
        await two.one.publish_delta("ses_1", delta("Hello ", 0), fleeting(4))
        await follower.next(WAIT)
        await two.other.publish_delta("ses_1", delta("world", 6), fleeting(4))
        await follower.next(WAIT)
        assert await texts_so_far(two.one) == {"itm_1": (0, "Hello world")}
        await two.other.publish("ses_1", [event(5, completes="itm_1")])
        await follower.next(WAIT)
        assert await two.one.drafts("ses_1") == []


async def test_a_wake_wakes_every_process_once(two: Two) -> None:
    buses = (two.one, two.other)
    for bus in buses:
        await bus.wakened(0)  # one that starts looks by itself
    await two.one.wake()
    assert await asyncio.gather(*(bus.wakened(WAIT) for bus in buses)) == [True, True]
    assert await asyncio.gather(*(bus.wakened(0.05) for bus in buses)) == [False, False]


async def test_a_signal_reaches_workers_of_every_process_once(two: Two) -> None:
    first, second = (Signal(kind="cancel", session_id=f"ses_{n}") for n in (1, 2))
    async with two.one.signals() as here, two.other.signals() as there:
        await two.one.signal(first)
        await two.one.signal(second)
        for signals in (here, there):
            async with asyncio.timeout(WAIT):
                assert [await anext(signals), await anext(signals)] == [first, second]


async def test_installations_that_share_a_backend_hear_nothing_of_each_other(two: Two) -> None:
    await two.stranger.wakened(0)
    async with two.stranger.subscribe("ses_1") as stranger, two.other.subscribe("ses_1") as mine:
        await two.one.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
        await two.one.wake()
        await two.one.publish("ses_1", [event(1)])
        assert await mine.next(WAIT) == fleeting(4)
        assert await mine.next(WAIT) == event(1)
        await two.stranger.publish("ses_1", [event(9)])
        assert await stranger.next(WAIT) == event(9)
        assert await two.stranger.drafts("ses_1") == []
        assert not await two.stranger.wakened(0)


async def test_a_session_is_subscribed_to_once_a_process_and_left_with_its_last_follower(
    two: Two,
) -> None:
    async with two.one.subscribe("ses_1"), two.one.subscribe("ses_1"), two.other.subscribe("ses_1"):
        assert await subscriptions(two.server) == {b"ses_1": 2}
    await until_nothing_is_followed(two)


async def test_a_word_to_a_user_reaches_every_process_over_one_subscription_each(two: Two) -> None:
    async with (
        two.one.subscribe("ses_1", "usr_1") as here,
        two.one.subscribe("ses_2", "usr_1") as beside,
        two.other.subscribe("ses_1", "usr_1") as there,
        two.stranger.subscribe("ses_1", "usr_1") as stranger,
    ):
        assert await subscriptions(two.server) == {b"ses_1": 2, b"ses_2": 1, b"usr_1": 2}
        await two.other.tell("usr_1", REVOKED)
        for follower in (here, beside, there):
            assert await follower.next(WAIT) == REVOKED
        assert await stranger.next(0.05) is None
    await until_nothing_is_followed(two)


async def test_every_process_knows_who_is_there_and_soon_who_is_gone(two: Two) -> None:
    await two.one.announce(worker("here"), WAIT)
    await two.other.announce(worker("there"), 0.3)
    await two.stranger.announce(worker("stranger"), WAIT)
    async with asyncio.timeout(WAIT):
        while sorted(await names(two.one)) != ["here", "there"]:
            pass  # a round trip
        while await names(two.one) != ["here"]:
            pass
        await two.server.ask("FLUSHALL")
        while await names(two.other):
            pass
        await two.one.announce(worker("here"), WAIT)
        while await names(two.other) != ["here"]:
            pass


async def test_who_is_there_is_not_told_while_redis_is_away(two: Two) -> None:
    await two.server.kill()
    async with asyncio.timeout(2 * WAIT):
        while await knows(two.one):
            pass
    await two.one.announce(worker("here"), WAIT)
    await two.one.withdraw("here")


async def knows(bus: Bus) -> bool:
    """Whether it can say who is there."""
    try:
        await bus.present()
    except Unavailable:
        return False
    return True


async def until_nothing_is_followed(two: Two) -> None:
    async with asyncio.timeout(WAIT):
        while await subscriptions(two.server):
            await two.one.drafts("ses_1")  # a round trip


async def subscriptions(server: RedisServer) -> dict[bytes, int]:
    """How many connections follow each session and user."""
    names = await server.ask("PUBSUB", "CHANNELS", "zene:mine:[lu][is][ve][er]:*")  # live, user
    counts = await server.ask("PUBSUB", "NUMSUB", *names) if names else []
    return {name.rpartition(b":")[2]: n for name, n in zip(counts[::2], counts[1::2], strict=True)}


async def test_every_key_names_its_installation_and_expires(two: Two) -> None:
    await two.one.publish_delta("ses_1", delta("Hello ", 0), fleeting(4))
    await two.one.publish_delta("ses_1", delta("world", 6), fleeting(4))
    await two.one.publish_delta("ses_2", delta("lost", 5), fleeting(4))
    await two.one.announce(worker("here"), WAIT)
    await two.one.drafts("ses_1")
    keys = await two.server.ask("KEYS", "*")
    assert {key.split(b":")[2] for key in keys} == {b"mark", b"text", b"open", b"here"}
    for key in keys:
        assert key.startswith((b"zene:mine:", b"zene:theirs:"))
        assert 0 < await two.server.ask("TTL", key.decode()) <= 3600

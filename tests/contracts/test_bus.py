"""What every bus must do. A backend is done when it passes this unchanged."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.redis_server import redis_server
from zene.bus.base import REVOKED, Bus, GatewayProcess, Live, Signal, WorkerProcess
from zene.bus.followers import QUEUE_LENGTH
from zene.bus.texts import TEXT_LIMIT
from zene.domain.events import Draft, ItemDelta
from zene.seams import backend

BACKENDS = ("memory", "redis")
WAIT = 5.0


@pytest.fixture(params=BACKENDS)
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    async with AsyncExitStack() as stack:
        url = "memory://"
        if request.param == "redis":
            url = (await stack.enter_async_context(redis_server(tmp_path))).url
        opened: Bus = backend("bus", url)(url, "one")
        await opened.start()
        stack.push_async_callback(opened.close)
        yield opened


def event(seq: int, completes: str | None = None) -> Live:
    return Live(seq, "task.started", durable=True, body=b"{}", completes=completes)


def delta(text: str, offset: int, item: str = "itm_1") -> Draft:
    body = ItemDelta(item_id=item, kind="message", offset=offset, text=text)
    return Draft(body=body, task_id="tsk_1", item_id=item)


async def texts_so_far(bus: Bus) -> dict[str | None, tuple[int, str]]:
    found = {}
    for draft in await bus.drafts("ses_1"):
        assert isinstance(draft.body, ItemDelta)
        assert draft.task_id == "tsk_1"
        found[draft.item_id] = (draft.body.offset, draft.body.text)
    return found


def worker(name: str, running: int = 0) -> WorkerProcess:
    return WorkerProcess(name=name, host="h", version="1", started_at=5, slots=10, running=running)


async def names(bus: Bus) -> list[str]:
    return [each.name for each in await bus.present()]


def fleeting(seq: int) -> Live:
    return Live(seq, "item.delta", durable=False, body=b"{}")


async def test_followers_get_events_in_order(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as one, bus.subscribe("ses_1") as two:
        await bus.publish("ses_1", [event(1), event(2)])
        await bus.publish("ses_1", [event(3)])
        for follower in (one, two):
            seqs = [live.seq for _ in range(3) if (live := await follower.next(WAIT))]
            assert seqs == [1, 2, 3]


async def test_a_word_to_a_user_reaches_each_of_their_subscriptions_and_no_other(bus: Bus) -> None:
    async with (
        bus.subscribe("ses_1", "usr_1") as first,
        bus.subscribe("ses_2", "usr_1") as second,
        bus.subscribe("ses_1", "usr_2") as others,
        bus.subscribe("ses_1") as nobodys,
    ):
        await bus.tell("usr_1", REVOKED)
        await bus.publish("ses_1", [event(1)])
        assert await first.next(WAIT) == REVOKED
        assert await second.next(WAIT) == REVOKED
        for follower in (first, others, nobodys):
            assert await follower.next(WAIT) == event(1)
        for follower in (first, second, others, nobodys):
            assert await follower.next(0.01) is None


async def test_a_user_is_followed_for_as_long_as_one_of_their_subscriptions_is_open(
    bus: Bus,
) -> None:
    async with bus.subscribe("ses_1", "usr_1") as stays:
        async with bus.subscribe("ses_1", "usr_1"):
            pass
        await bus.tell("usr_1", REVOKED)
        assert await stays.next(WAIT) == REVOKED


async def test_who_is_there_is_what_it_last_said(bus: Bus) -> None:
    gateway = GatewayProcess(
        name="g", host="h", version="1", started_at=5, draining=True, streams=3, users=2
    )
    assert await bus.present() == []
    await bus.announce(worker("w"), WAIT)
    await bus.announce(gateway, WAIT)
    await bus.announce(worker("w", running=7), WAIT)
    assert {each.name: each for each in await bus.present()} == {
        "w": worker("w", running=7),
        "g": gateway,
    }


async def test_who_says_that_it_goes_is_gone_and_who_says_nothing_soon_is(bus: Bus) -> None:
    for name in ("goes", "dies", "stays"):
        await bus.announce(worker(name), 0.3 if name == "dies" else WAIT)
    assert set(await names(bus)) >= {"goes", "stays"}
    await bus.withdraw("goes")
    await bus.withdraw("never was there")
    async with asyncio.timeout(WAIT):
        while await names(bus) != ["stays"]:
            await bus.wakened(0.01)


async def test_what_is_fleeting_comes_behind_the_durable_and_stays_so(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as follower:
        await bus.publish("ses_1", [event(1), Live(1, "usage.updated", durable=False, body=b"{}")])
        found = [live for _ in range(2) if (live := await follower.next(WAIT))]
    assert [(live.type, live.durable) for live in found] == [
        ("task.started", True),
        ("usage.updated", False),
    ]
    assert await bus.drafts("ses_1") == [], "it is no item's text"


async def test_a_follower_gets_nothing_of_other_sessions(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as follower:
        await bus.publish("ses_2", [event(1)])
        await bus.publish("ses_1", [event(7)])
        live = await follower.next(WAIT)
        assert live is not None
        assert live.seq == 7


async def test_what_was_published_before_is_not_followed(bus: Bus) -> None:
    await bus.publish("ses_1", [event(1)])
    async with bus.subscribe("ses_1") as follower:
        assert await follower.next(0) is None


async def test_waiting_for_an_event_ends_with_a_nudge(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as follower, asyncio.timeout(WAIT):
        waiting = asyncio.create_task(follower.next())
        while not waiting.done():
            await asyncio.sleep(0)
            follower.nudge()
        assert await waiting is None
        assert not follower.ended


async def test_what_comes_while_one_waits_may_be_taken_and_the_rest_comes_in_order(
    bus: Bus,
) -> None:
    taken: list[int] = []

    def take(events: Sequence[Live]) -> Sequence[Live]:
        """Up to the third."""
        while events and events[0].seq < 3:
            taken.append(events[0].seq)
            events = events[1:]
        return events

    async with bus.subscribe("ses_1") as follower:
        waiting = asyncio.create_task(follower.next(WAIT, take))
        await asyncio.sleep(0)
        await bus.publish("ses_1", [event(1)])
        await bus.publish("ses_1", [event(2), event(3), event(4)])
        await bus.publish("ses_1", [event(2)])
        left = [await waiting, *[await follower.next(WAIT, take) for _ in range(2)]]
        assert taken == [1, 2]
        assert [live and live.seq for live in left] == [3, 4, 2], "nothing passes what is queued"


async def test_a_follower_that_cannot_take_what_comes_ends_lagged_and_others_go_on(
    bus: Bus,
) -> None:
    def take(_: Sequence[Live]) -> Sequence[Live]:
        raise RuntimeError("broken")

    async with bus.subscribe("ses_1") as broken, bus.subscribe("ses_1") as healthy:
        waiting = asyncio.create_task(broken.next(WAIT, take))
        await asyncio.sleep(0)
        await bus.publish("ses_1", [event(1)])
        assert await waiting is None
        assert broken.lagged
        live = await healthy.next(WAIT)
        assert live is not None
        assert live.seq == 1


async def test_waiting_for_an_event_ends_with_its_time(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as follower:
        assert await follower.next(0.01) is None
        assert not follower.lagged


async def test_a_follower_that_does_not_read_ends_lagged_and_others_go_on(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as stalled, bus.subscribe("ses_1") as healthy:
        for seq in range(QUEUE_LENGTH + 1):
            await bus.publish("ses_1", [event(seq)])
            live = await healthy.next(WAIT)
            assert live is not None
            assert live.seq == seq
        assert stalled.lagged
        assert not healthy.lagged
        read = 0
        while await stalled.next(WAIT) is not None:
            read += 1
        assert read == QUEUE_LENGTH


async def test_a_late_joiner_gets_the_text_so_far_of_each_open_item(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("Hello ", 0), fleeting(4))
    await bus.publish_delta("ses_1", delta("wörld", 6), fleeting(4))
    await bus.publish_delta("ses_1", delta("other", 0, "itm_2"), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "Hello wörld"), "itm_2": (0, "other")}


async def test_a_delta_replaces_the_text_from_its_offset_on(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("Hello world", 0), fleeting(4))
    await bus.publish_delta("ses_1", delta("there", 6), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "Hello there")}


async def test_a_completed_item_has_no_text_so_far(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
    await bus.publish("ses_1", [event(5, completes="itm_1")])
    assert await bus.drafts("ses_1") == []


async def test_a_delta_at_the_beginning_begins_the_text_anew(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("Hello", 0), fleeting(4))
    await bus.publish_delta("ses_1", delta("Good", 0), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "Good")}


async def test_a_text_whose_beginning_is_unknown_is_not_kept(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("world", 6), fleeting(4))
    assert await bus.drafts("ses_1") == []


async def test_a_text_is_kept_up_to_the_piece_that_leaves_a_gap(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("Hello ", 0), fleeting(4))
    await bus.publish_delta("ses_1", delta("!", 11), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "Hello ")}


async def test_a_text_is_not_kept_beyond_its_limit(bus: Bus) -> None:
    await bus.publish_delta("ses_1", delta("x" * TEXT_LIMIT, 0), fleeting(4))
    await bus.publish_delta("ses_1", delta("y", TEXT_LIMIT), fleeting(4))
    assert await texts_so_far(bus) == {"itm_1": (0, "x" * TEXT_LIMIT)}


async def test_a_follower_that_left_gets_nothing_and_can_come_back(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as left:
        pass
    async with bus.subscribe("ses_1") as back:
        await bus.publish("ses_1", [event(1)])
        live = await back.next(WAIT)
        assert live == event(1)
        assert await left.next(0) is None


async def test_a_wake_wakes_who_waits(bus: Bus) -> None:
    waiting = asyncio.create_task(bus.wakened(WAIT))
    await asyncio.sleep(0)
    await bus.wake()
    assert await waiting


async def test_a_wake_while_nobody_waits_is_kept_once(bus: Bus) -> None:
    await bus.wake()
    await bus.wake()
    assert await bus.wakened(WAIT)
    assert not await bus.wakened(0.01)


async def test_signals_reach_every_worker(bus: Bus) -> None:
    async with bus.signals() as one, bus.signals() as two:
        await bus.signal(Signal(kind="cancel", session_id="ses_1"))
        for signals in (one, two):
            async with asyncio.timeout(WAIT):
                assert (await anext(signals)).session_id == "ses_1"


async def test_closing_ends_subscriptions_and_may_be_done_twice(bus: Bus) -> None:
    async with bus.subscribe("ses_1") as follower:
        await bus.close()
        await bus.close()
        assert await follower.next(WAIT) is None
        assert follower.ended
        assert not follower.lagged

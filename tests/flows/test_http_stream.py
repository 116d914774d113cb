"""Following a session over HTTP: gapless through cuts and losses, and ended when it has to be."""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from tests.gateway import PASSWORD, Gateway, email, running
from zene.bus.base import live
from zene.client import AsyncClient
from zene.domain.errors import NotFound
from zene.domain.events import (
    Draft,
    Event,
    ItemCompleted,
    ItemDelta,
    ItemStarted,
    SessionUpdated,
    envelope,
)
from zene.domain.times import rfc3339
from zene.gateway.shapes import Session
from zene.gateway.snapshots import State
from zene.store import users

FORGED = "\x85x\n\nevent: admin\r\ndata: {}\u2028\u2029\r\r"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Gateway, None]:
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def ada(gateway: Gateway) -> AsyncClient:
    return await gateway.client("ada")


def titles(*names: str) -> list[Draft]:
    return [Draft(body=SessionUpdated(title=name)) for name in names]


async def taken(events: AsyncGenerator[Event, None], count: int) -> list[Event]:
    """So many events of a stream, within a time that a wrong server does not keep."""
    found: list[Event] = []
    async with aclosing(events), asyncio.timeout(10):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


@asynccontextmanager
async def opened(
    gateway: Gateway, session: Session, *, name: str = "ada", **headers: str
) -> AsyncIterator[httpx.Response]:
    """The raw stream, as a browser opens it."""
    async with AsyncClient(gateway.url) as client:
        tokens = await client.login(email(name), PASSWORD)
    headers = {"authorization": f"Bearer {tokens.access_token}"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=10) as http,
        http.stream("GET", f"/v1/sessions/{session.id}/stream") as response,
    ):
        yield response


async def until_closed(response: httpx.Response) -> str:
    async with asyncio.timeout(10):
        return (await response.aread()).decode()


async def first_lines(response: httpx.Response, count: int) -> list[str]:
    found: list[str] = []
    lines = cast("AsyncGenerator[str, None]", response.aiter_lines())
    async with asyncio.timeout(10), aclosing(lines):
        async for line in lines:
            found.append(line)
            if len(found) == count:
                break
    return found


def delta(
    gateway: Gateway, session: Session, item_id: str, offset: int, text: str, seq: int
) -> tuple[Draft, Event]:
    body = ItemDelta(item_id=item_id, kind="message", offset=offset, text=text)
    draft = Draft(body=body, item_id=item_id)
    made = envelope(draft, session_id=session.id, seq=seq, ts=rfc3339(gateway.clock()))
    return draft, made


async def say(
    gateway: Gateway, session: Session, item_id: str, offset: int, text: str, seq: int
) -> None:
    draft, event = delta(gateway, session, item_id, offset, text, seq)
    await gateway.bus.publish_delta(session.id, draft, live(event))


async def test_the_log_comes_first_and_then_what_happens(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    await gateway.append(session.id, titles("a", "b"))
    following = asyncio.create_task(taken(ada.follow(session.id), 5))
    while not (await ada.events(session.id, after=3, wait=0)).events:
        await gateway.append(session.id, titles("c", "d"))
    assert [event.seq for event in await following] == [1, 2, 3, 4, 5]


async def test_a_reader_that_is_cut_off_again_and_again_gets_every_event_once_and_in_order(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    chance = random.Random(7)
    found: list[int] = []

    async def write() -> None:
        for n in range(40):
            await gateway.append(
                session.id,
                titles(*(str(n) for _ in range(chance.randint(1, 9)))),
                publish=chance.random() < 0.8,
            )

    async def read() -> None:
        while len(found) < 120:
            events = ada.follow(session.id, after=found[-1] if found else 0)
            found.extend(event.seq for event in await taken(events, chance.randint(1, 20)))

    async with asyncio.timeout(60), asyncio.TaskGroup() as both:
        both.create_task(write())
        both.create_task(read())
    assert found == list(range(1, len(found) + 1))


async def test_an_event_that_was_committed_and_never_published_comes_within_two_seconds(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    events = ada.follow(session.id)
    async with aclosing(events), asyncio.timeout(2.5):
        assert (await anext(events)).seq == 1
        await gateway.append(session.id, titles("lost"), publish=False)
        assert (await anext(events)).seq == 2


async def test_where_the_bus_skips_one_it_is_read_from_the_store_in_its_place(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    events = ada.follow(session.id)
    async with aclosing(events), asyncio.timeout(5):
        assert (await anext(events)).seq == 1
        lost = await gateway.append(session.id, titles("lost"), publish=False)
        await gateway.append(session.id, titles("seen"))
        await gateway.bus.publish(session.id, [live(event) for event in lost])  # late, and twice
        await gateway.append(session.id, titles("last"))
        assert [(await anext(events)).seq for _ in range(3)] == [2, 3, 4]


async def test_a_fault_while_an_event_is_passed_on_loses_none_and_says_none_twice(
    gateway: Gateway, ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = []

    def delivered(*_: object) -> None:
        faults.append(1)
        raise RuntimeError("broken")

    monkeypatch.setattr("zene.gateway.meters.Meters.delivered", delivered)
    session = await ada.create_session()
    async with opened(gateway, session) as response:
        lines = cast("AsyncGenerator[str, None]", response.aiter_lines())
        seen: list[str] = []
        async with asyncio.timeout(10), aclosing(lines):
            async for line in lines:
                seen += [line] if line.startswith("id: ") else []
                if line == "id: 1" and not faults:
                    await asyncio.sleep(0.1)  # it waits for what is live
                    await gateway.append(session.id, titles("a", "b"))
                    await gateway.append(session.id, titles("c"))
                if line == "id: 4":
                    break
    assert faults
    assert seen == [f"id: {seq}" for seq in range(1, 5)]


async def test_a_message_goes_on_in_the_middle_after_a_reconnect(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session, item = await ada.create_session(), gateway.id("itm")
    started = Draft(body=ItemStarted(item_id=item, kind="message"), item_id=item)
    await gateway.append(session.id, [started])
    await say(gateway, session, item, 0, "Hello", 2)
    await say(gateway, session, item, 5, ", wörld", 2)
    first = await taken(ada.follow(session.id, after=1), 2)
    assert [event.type for event in first] == ["item.started", "item.delta"]
    assert msgspec.json.decode(first[1].data) == {
        "item_id": item, "kind": "message", "offset": 0, "text": "Hello, wörld",
    }  # fmt: skip
    events = ada.follow(session.id, after=2)
    async with aclosing(events), asyncio.timeout(5):
        assert (await anext(events)).seq == 2
        await say(gateway, session, item, 12, "!", 2)
        assert msgspec.json.decode((await anext(events)).data)["text"] == "!"
        ended = ItemCompleted(
            item_id=item, kind="message", status="completed", text="Hello, wörld!"
        )
        await gateway.append(session.id, [Draft(body=ended, item_id=item)])
        assert (await anext(events)).type == "item.completed"
    assert len(await taken(ada.follow(session.id, after=2), 1)) == 1


async def test_an_item_that_the_log_completes_is_not_opened_again(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session, item = await ada.create_session(), gateway.id("itm")
    await say(gateway, session, item, 0, "Hel", 2)
    ended = ItemCompleted(item_id=item, kind="message", status="completed", text="Hello")
    await gateway.append(session.id, [Draft(body=ended, item_id=item)], publish=False)
    events = ada.follow(session.id)
    async with aclosing(events), asyncio.timeout(5):
        assert [(await anext(events)).type for _ in range(2)] == [
            "session.created",
            "item.completed",
        ]
        await gateway.append(session.id, titles("next"))
        assert (await anext(events)).type == "session.updated"


async def test_a_delta_is_never_ahead_of_the_events_before_it(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session, item = await ada.create_session(), gateway.id("itm")
    events = ada.follow(session.id)
    async with aclosing(events), asyncio.timeout(5):
        await anext(events)
        started = Draft(body=ItemStarted(item_id=item, kind="message"), item_id=item)
        await gateway.append(session.id, [started], publish=False)
        await say(gateway, session, item, 0, "Hello", 2)
        assert [(await anext(events)).type for _ in range(2)] == ["item.started", "item.delta"]


async def test_a_cursor_from_the_future_gets_a_snapshot_and_goes_on_from_there(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session(title="Bugs")
    task = await ada.submit(session.id, "Fix it.")
    events = ada.follow(session.id, after=999)
    async with aclosing(events), asyncio.timeout(5):
        event = await anext(events)
        assert (event.type, event.seq) == ("snapshot", 2)
        state = msgspec.json.decode(
            msgspec.json.decode(event.data, type=dict[str, msgspec.Raw])["state"], type=State
        )
        assert (state.session.title, [each.id for each in state.tasks]) == ("Bugs", [task.id])
        await gateway.append(session.id, titles("next"))
        assert (await anext(events)).seq == 3


async def test_a_snapshot_is_given_when_asked_for(ada: AsyncClient) -> None:
    session = await ada.create_session()
    [event] = await taken(ada.follow(session.id, after=None), 1)
    assert event.type == "snapshot"


async def test_the_frames_are_what_a_browser_reads(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session(title=FORGED[:40])
    await gateway.append(session.id, titles(FORGED))
    async with opened(gateway, session) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        lines = await first_lines(response, 10)
    retry, *frames = "\n".join(lines).strip().split("\n\n")
    assert retry.startswith("retry: ")
    for number, frame in enumerate(frames, start=1):
        seq, kind, data = frame.split("\n")
        assert seq == f"id: {number}"
        assert kind in ("event: session.created", "event: session.updated")
        assert msgspec.json.decode(data.removeprefix("data: "), type=Event).seq == number


async def test_last_event_id_goes_before_the_query(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session()
    await gateway.append(session.id, titles("a", "b"))
    async with opened(gateway, session, last_event_id="2") as response:
        assert "id: 3" in await first_lines(response, 4)


@pytest.mark.parametrize("cursor", ["x", "-1", "1e3", "1" * 10_000, "0x1", "1, 2"])
async def test_a_cursor_that_is_none_is_refused(
    gateway: Gateway, ada: AsyncClient, cursor: str
) -> None:
    session = await ada.create_session()
    async with opened(gateway, session, last_event_id=cursor) as response:
        assert response.status_code == 400
        assert msgspec.json.decode(await response.aread())["code"] == "bad_cursor"


async def test_what_takes_no_stream_is_told_so(gateway: Gateway, ada: AsyncClient) -> None:
    session = await ada.create_session()
    async with opened(gateway, session, accept="application/json") as response:
        assert response.status_code == 406


async def test_a_stream_over_the_users_cap_is_refused_until_another_is_closed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, streams_per_user=2) as gateway:
        ada = await gateway.client("ada")
        session = await ada.create_session()
        async with opened(gateway, session), opened(gateway, session):
            async with opened(gateway, session) as third:
                assert third.status_code == 429
                assert int(third.headers["retry-after"]) > 0
            bob = await gateway.client("bob")
            theirs = await bob.create_session()
            async with opened(gateway, theirs, name="bob") as other:
                assert other.status_code == 200
        async with asyncio.timeout(5):
            while True:
                async with opened(gateway, session) as again:
                    if again.status_code == 200:
                        break


async def test_a_deleted_session_says_so_and_ends_the_stream(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    events = ada.follow(session.id)
    async with aclosing(events), asyncio.timeout(5):
        await anext(events)
        await ada.delete_session(session.id)
        assert [event.type async for event in events] == ["session.deleted"]
    with pytest.raises(NotFound):
        await taken(ada.follow(session.id), 1)


async def test_a_stream_ends_within_five_seconds_when_its_user_is_disabled(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session, user = await ada.create_session(), await ada.me()
    async with opened(gateway, session) as response:
        await gateway.store.write(users.set_disabled, user.id, gateway.clock())
        gateway.clock.now += 2_000
        async with asyncio.timeout(5):
            await until_closed(response)


async def test_a_stream_that_is_never_silent_ends_too_when_its_user_is_disabled(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session, user = await ada.create_session(), await ada.me()
    async with opened(gateway, session) as response, asyncio.timeout(5):
        await gateway.store.write(users.set_disabled, user.id, gateway.clock())
        gateway.clock.now += 2_000
        ending = asyncio.create_task(until_closed(response))
        while not ending.done():
            await gateway.append(session.id, titles("a"))
        await ending


async def test_a_stream_ends_within_five_seconds_when_its_token_expires(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    async with opened(gateway, session) as response:
        gateway.clock.now += 15 * 60_000
        async with asyncio.timeout(5):
            assert "session.created" in await until_closed(response)


async def test_the_client_goes_on_following_with_a_new_token(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    events = ada.follow(session.id)
    async with aclosing(events), asyncio.timeout(10):
        await anext(events)
        gateway.clock.now += 15 * 60_000
        await gateway.append(session.id, titles("a"), publish=False)
        assert (await anext(events)).seq == 2


async def test_streams_end_with_their_cursor_when_the_gateway_goes_away(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        ada = await gateway.client("ada")
        session = await ada.create_session()
        async with opened(gateway, session) as response:
            ending = asyncio.create_task(until_closed(response))
            lines = 0
            while lines == 0:  # the stream has begun
                lines = len((await ada.events(session.id)).events)
            gateway.app.drain()
            assert "id: 1\n" in await ending


def until_reset(connection: socket.socket) -> None:
    """Send until the other side has broken off."""
    while True:
        try:
            connection.sendall(b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return


async def test_a_reader_that_stops_reading_is_cut_off_and_others_are_not(tmp_path: Path) -> None:
    async with running(tmp_path, send_seconds=0.5) as gateway:
        ada = await gateway.client("ada")
        session = await ada.create_session()
        tokens = await ada.login(email("ada"), PASSWORD)
        address = urlsplit(gateway.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.sendall(
                f"GET /v1/sessions/{session.id}/stream HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"Authorization: Bearer {tokens.access_token}\r\n\r\n".encode()
            )
            assert await asyncio.to_thread(stalled.recv, 100)
            for _ in range(8):
                await gateway.append(session.id, titles(*["x" * 20_000] * 20))
            async with asyncio.timeout(10):
                await asyncio.to_thread(until_reset, stalled)
        assert len(await taken(ada.follow(session.id), 161)) == 161


async def test_a_silent_stream_says_that_it_is_alive(tmp_path: Path) -> None:
    async with running(tmp_path, keep_alive_seconds=0.5) as gateway:
        ada = await gateway.client("ada")
        session = await ada.create_session()
        async with opened(gateway, session, last_event_id="1") as response:
            assert (await first_lines(response, 3))[2] == ":"


async def test_a_long_poll_answers_as_soon_as_there_is_something(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    asked = asyncio.create_task(ada.events(session.id, after=1, wait=20))
    await gateway.append(session.id, titles("a"))
    async with asyncio.timeout(5):
        assert [event.seq for event in (await asked).events] == [2]


async def test_a_long_poll_finds_what_was_never_published_and_gives_up_in_time(
    gateway: Gateway, ada: AsyncClient
) -> None:
    session = await ada.create_session()
    assert (await ada.events(session.id, after=1, wait=0.1)).events == []
    asked = asyncio.create_task(ada.events(session.id, after=1, wait=20))
    await gateway.append(session.id, titles("a"), publish=False)
    async with asyncio.timeout(5):
        assert [event.seq for event in (await asked).events] == [2]

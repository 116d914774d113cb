"""Three gateways on one Redis: what concerns a user or a task reaches whoever has to know, wherever they are."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import msgspec
import pytest

from tests.desks import a_desk
from tests.gateway import PASSWORD, Gateway, email, running
from tests.redis_server import RedisServer, redis_server
from tests.scripted import Scripted, call, says
from zene.bus.base import Bus
from zene.client import AsyncClient
from zene.domain.errors import Unauthorized
from zene.domain.events import Draft, Event, SessionUpdated
from zene.domain.users import Role
from zene.seams import backend
from zene.worker.worker import Worker

SECONDS = 5.0  # what was promised for streams of who may not go on
LONG = 30.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as started:
        yield started


async def on_redis(server: RedisServer, stack: AsyncExitStack) -> Bus:
    bus: Bus = backend("bus", server.url)(server.url, "mine")
    await bus.start()
    stack.push_async_callback(bus.close)
    return bus


@pytest.fixture
async def gateways(tmp_path: Path, server: RedisServer) -> AsyncIterator[list[Gateway]]:
    """Their clocks stand still: nobody finds out by looking again after a while."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(tmp_path, bus=await on_redis(server, stack)))
            for _ in range(3)
        ]


async def in_each(gateways: list[Gateway], name: str) -> list[AsyncClient]:
    """A user's clients, one at each gateway, each with a sign-in of its own."""
    return [await gateway.signed_in(name) for gateway in gateways]


async def opened(client: AsyncClient, session_id: str) -> AsyncGenerator[Event, None]:
    """A stream that is being followed."""
    events = client.follow(session_id)
    assert (await anext(events)).type == "session.created"
    return events


async def followed(server: RedisServer) -> dict[bytes, int]:
    """How many connections to Redis follow each session and each user."""
    names = await server.ask("PUBSUB", "CHANNELS", "zene:mine:[lu][is][ve][er]:*")  # live, user
    counts = await server.ask("PUBSUB", "NUMSUB", *names) if names else []
    return {name.rpartition(b":")[2]: n for name, n in zip(counts[::2], counts[1::2], strict=True)}


async def until_followed(server: RedisServer, expected: dict[str, int]) -> None:
    wanted = {name.encode(): count for name, count in expected.items()}
    async with asyncio.timeout(LONG):
        while await followed(server) != wanted:
            pass  # a round trip


async def test_a_session_is_followed_once_by_a_gateway_however_many_look_on(
    gateways: list[Gateway], server: RedisServer
) -> None:
    ada = await gateways[0].client("ada")
    clients = [ada, ada, *(await in_each(gateways[1:], "ada")) * 3]
    session, user = await ada.create_session(), await ada.me()
    async with AsyncExitStack() as stack:
        streams = [await opened(client, session.id) for client in clients]
        for stream in streams:
            await stack.enter_async_context(aclosing(stream))
        assert await followed(server) == {session.id.encode(): 3, user.id.encode(): 3}
        await gateways[1].append(session.id, [Draft(body=SessionUpdated(title="seen by all"))])
        async with asyncio.timeout(LONG):
            assert [(await anext(stream)).seq for stream in streams] == [2] * len(streams)
    await until_followed(server, {})


async def test_a_user_who_is_disabled_is_cut_off_at_every_gateway_at_once(
    gateways: list[Gateway], server: RedisServer
) -> None:
    root = await gateways[0].client("root", Role.ADMIN)
    user, bob_user = await gateways[0].user("ada"), await gateways[0].user("bob")
    ada, bob = await in_each(gateways, "ada"), await gateways[2].signed_in("bob")
    session, other = await ada[0].create_session(), await bob.create_session()
    async with AsyncExitStack() as stack:
        streams = [await opened(ada[n], session.id) for n in (0, 0, 2, 2)]
        spared = await opened(bob, other.id)
        for stream in (*streams, spared):
            await stack.enter_async_context(aclosing(stream))
        poll = asyncio.create_task(ada[1].events(session.id, after=1, wait=30))
        await until_followed(server, {session.id: 3, user.id: 3, other.id: 1, bob_user.id: 1})
        async with asyncio.timeout(SECONDS):
            await root.change_user(user.id, disabled=True)
            for stream in streams:
                with pytest.raises(Unauthorized):
                    await anext(stream)
            with pytest.raises(Unauthorized):
                await poll
        await gateways[0].append(other.id, [Draft(body=SessionUpdated(title="goes on"))])
        async with asyncio.timeout(SECONDS):
            assert (await anext(spared)).type == "session.updated"


async def test_signing_out_ends_the_streams_of_that_sign_in_everywhere_and_no_other(
    gateways: list[Gateway],
) -> None:
    ada = await gateways[0].client("ada")
    session, tokens = await ada.create_session(), await ada.login(email("ada"), PASSWORD)
    beside = AsyncClient(gateways[2].url, tokens=tokens)
    other = await gateways[2].signed_in("ada")
    streams = [await opened(client, session.id) for client in (ada, beside, other)]
    async with beside, aclosing(streams[0]), aclosing(streams[1]), aclosing(streams[2]):
        async with asyncio.timeout(SECONDS):
            await ada.logout()
            for stream in streams[:2]:
                with pytest.raises(Unauthorized):
                    await anext(stream)
        await gateways[1].append(session.id, [Draft(body=SessionUpdated(title="goes on"))])
        async with asyncio.timeout(SECONDS):
            assert (await anext(streams[2])).seq == 2


async def test_without_redis_a_user_who_is_disabled_is_cut_off_all_the_same(
    gateways: list[Gateway], server: RedisServer
) -> None:
    root = await gateways[0].client("root", Role.ADMIN)
    user = await gateways[0].user("ada")
    ada = await in_each(gateways, "ada")
    session = await ada[0].create_session()
    streams = [await opened(client, session.id) for client in ada]
    async with aclosing(streams[0]), aclosing(streams[1]), aclosing(streams[2]):
        await server.kill()
        async with asyncio.timeout(SECONDS):
            await root.change_user(user.id, disabled=True)
            for gateway in gateways:
                gateway.clock.now += 2_000
            for stream in streams:
                with pytest.raises(Unauthorized):
                    await anext(stream)


async def test_an_approval_that_is_wanted_and_the_quota_are_told_wherever_their_user_looks_on(
    tmp_path: Path, gateways: list[Gateway], server: RedisServer
) -> None:
    model = Scripted(says(call("shell", command="true")))
    async with AsyncExitStack() as stack:
        bus = await on_redis(server, stack)
        worker = Worker(await stack.enter_async_context(a_desk(tmp_path, bus, model)))
        ada, bob = [await gateways[0].client(name) for name in ("ada", "bob")]
        root = await gateways[0].client("root", Role.ADMIN)
        await root.change_user((await ada.me()).id, quota={"tokens": 1_000_000})
        elsewhere = await gateways[1].signed_in("ada")
        asks = await ada.create_session(approval_policy="ask_always")
        sessions = [await each.create_session() for each in (elsewhere, bob)]
        own, beside, others = (
            await opened(ada, asks.id),
            await opened(elsewhere, sessions[0].id),
            await opened(bob, sessions[1].id),
        )
        for stream in (own, beside, others):
            await stack.enter_async_context(aclosing(stream))
        running_ = asyncio.create_task(worker.run())
        async with asyncio.timeout(LONG):
            await ada.submit(asks.id, "Go.")
            told = await until(beside, "approval.wanted")
            quota = await until(beside, "quota.updated")
            asked = await until(own, "approval.requested")
            for session in (asks, *sessions):
                await gateways[2].append(session.id, [Draft(body=SessionUpdated(title="next"))])
            for stream in (own, others):
                while (event := await anext(stream)).type != "session.updated":
                    assert event.type != "approval.wanted"
                    assert event.type != "quota.updated" or stream is own
            await worker.stop()
            await running_
    data = msgspec.json.decode(told.data)
    assert msgspec.json.decode(quota.data) == {"used": 1050, "reserved": 0, "limit": 1_000_000}
    assert (told.session_id, told.seq) == (sessions[0].id, 1)
    assert data["session_id"] == asks.id
    assert data["approval_id"] == msgspec.json.decode(asked.data)["approval_id"]


async def test_a_cancel_reaches_the_worker_from_any_gateway_and_every_tab_sees_the_end(
    tmp_path: Path, gateways: list[Gateway], server: RedisServer
) -> None:
    model = Scripted(says(call("shell", command="echo begun; sleep 600")))
    async with AsyncExitStack() as stack:
        bus = await on_redis(server, stack)
        worker = Worker(await stack.enter_async_context(a_desk(tmp_path, bus, model)))
        ada = await gateways[0].client("ada")
        beside, elsewhere = [await gateways[n].signed_in("ada") for n in (1, 2)]
        session = await ada.create_session()
        tabs = [await opened(client, session.id) for client in (ada, elsewhere)]
        for tab in tabs:
            await stack.enter_async_context(aclosing(tab))
        signals = await stack.enter_async_context(bus.signals())
        running_ = asyncio.create_task(worker.run())
        async with asyncio.timeout(LONG):
            task = await beside.submit(session.id, "Go.")
            for tab in tabs:
                await until(tab, "item.delta")  # of the command that has begun
            await beside.cancel(task.id)
            while (signal := await anext(signals)).kind != "cancel":
                pass
            assert signal.task_id == task.id
            for tab in tabs:
                end = await until(tab, "task.finished")
                assert msgspec.json.decode(end.data)["outcome"] == "cancelled"
            await worker.stop()
            await running_


async def until(events: AsyncGenerator[Event, None], kind: str) -> Event:
    """Read on to the first event of that type."""
    while (event := await anext(events)).type != kind:
        pass
    return event

"""What only a server can do: refuse, restart, fail over, fall silent, or commit without saying so."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from tests.contracts.store.world import World, finished, message
from tests.postgres_server import PostgresServer, postgres_server
from tests.proxy import proxy
from tests.servers import a_free_port
from zene.domain.errors import SetupError, Unavailable, ZeneError
from zene.store import schema, users
from zene.store.base import Rows, Statement, Store, Unit
from zene.store.outages import translated
from zene.store.postgres import WRITERS, PostgresStore

SECONDS = 20.0
COUNT = Statement(text("SELECT count(*) FROM users"))
DISABLE = Statement(text("UPDATE users SET disabled_at = 1 WHERE id = :user"))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that may be ended and made read-only; nobody else's."""
    with postgres_server("max_connections=25", "superuser_reserved_connections=0") as own:
        yield own


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[str]:
    async with server.database() as name:
        yield name


@pytest.fixture
async def store(server: PostgresServer, database: str) -> AsyncIterator[Store]:
    opened = PostgresStore(server.url(database))
    yield opened
    await opened.close()


async def unavailable(store: Store, unit: Any, *args: Any) -> Unavailable:
    """The unit is refused with a time to try again."""
    async with asyncio.timeout(SECONDS):
        with pytest.raises(Unavailable) as refused:
            await store.write(unit, *args)
    assert refused.value.retry_after
    return refused.value


async def recovered(store: Store) -> int:
    """What there is once the store is back; it is asked until then, without being opened anew."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await store.write(users.count_users)
            except Unavailable:
                continue


def twice(first: str, second: str) -> Unit[Rows]:
    """Two statements of one transaction."""
    yield Statement(text(first))()
    return (yield Statement(text(second))())


async def test_a_start_that_finds_no_database_says_what_to_do(server: PostgresServer) -> None:
    cases: list[tuple[str, int | None, type[ZeneError], str]] = [
        ("template1", a_free_port(), Unavailable, "Start it, or correct ZENE_STORE."),
        ("nowhere", None, SetupError, "Correct ZENE_STORE, or make that database or user."),
    ]
    for database, port, kind, told in cases:
        store = PostgresStore(server.url(database, port))
        with pytest.raises(kind) as raised:
            await store.check()
        assert str(raised.value).endswith(told)
        await store.close()


async def test_a_server_that_restarts_is_told_and_found_again(
    server: PostgresServer, world: World
) -> None:
    await world.user()
    await asyncio.to_thread(server.stop)
    assert (await unavailable(world.store, users.count_users)).status == 503
    with pytest.raises(Unavailable):
        await world.store.read(users.count_users)
    await asyncio.to_thread(server.start)
    assert await world.store.read(users.count_users) == 1
    assert await world.store.write(users.count_users) == 1


async def test_a_server_that_shuts_down_ends_its_units_and_is_found_again(
    server: PostgresServer, world: World
) -> None:
    await world.user()
    sleeping = asyncio.create_task(
        unavailable(world.store, twice, "SELECT 1", "SELECT pg_sleep(60)")
    )
    await asleep(server, 1)
    await asyncio.to_thread(server.stop, "fast")
    await sleeping
    await asyncio.to_thread(server.start)
    assert await world.store.write(users.count_users) == 1


async def test_connections_that_an_operator_ends_are_made_anew(
    server: PostgresServer, database: str, world: World
) -> None:
    await world.user()
    running = [
        asyncio.create_task(unavailable(world.store, twice, "SELECT 1", "SELECT pg_sleep(60)"))
        for _ in range(3)
    ]
    await asleep(server, 3)
    await server.ask(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    )
    await asyncio.gather(*running)
    assert await world.store.write(users.count_users) == 1
    assert await world.store.read(users.count_users) == 1


async def test_too_many_clients_are_told_and_forgotten_once_there_is_room(
    server: PostgresServer, database: str, world: World
) -> None:
    others = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            others.append(await asyncpg.connect(server.url(database)))
    assert "too many" in (await unavailable(world.store, users.count_users)).message
    for other in others:
        await other.close()
    assert await recovered(world.store) == 0


async def test_a_server_that_takes_no_writes_is_told_and_read(
    server: PostgresServer, world: World
) -> None:
    await world.user()
    await server.ask("ALTER SYSTEM SET default_transaction_read_only = on")
    await server.ask("SELECT pg_reload_conf()")
    await until(server, "SELECT current_setting('default_transaction_read_only') = 'on'")
    assert (
        "no writes"
        in (await unavailable(world.store, users.create_first, "a", "b", "c", 1)).message
    )
    assert await world.store.read(users.count_users) == 1
    await server.ask("ALTER SYSTEM RESET default_transaction_read_only")
    await server.ask("SELECT pg_reload_conf()")
    await until(server, "SELECT current_setting('default_transaction_read_only') = 'off'")
    async with asyncio.timeout(SECONDS):
        await world.user()


async def test_a_statement_and_a_lock_that_take_too_long_are_given_up(
    server: PostgresServer, database: str, world: World
) -> None:
    user = await world.user()
    assert (
        "statement timeout"
        in (await unavailable(world.store, twice, "SELECT 1", "SELECT pg_sleep(60)")).message
    )
    other = await asyncpg.connect(server.url(database))
    await other.execute(f"BEGIN; UPDATE users SET turn = 1 WHERE id = '{user.id}'")
    assert (
        "lock timeout" in (await unavailable(world.store, users.set_disabled, user.id, 1)).message
    )
    await other.close()
    assert (await world.store.write(users.set_disabled, user.id, 1)).disabled_at == 1


async def test_a_client_that_stands_still_amid_a_statement_keeps_its_locks_for_5_s_only(
    server: PostgresServer, database: str, world: World
) -> None:
    user = await world.user()
    asleep = await asyncpg.connect(
        server.url(database),
        server_settings={"application_name": "zene", "idle_in_transaction_session_timeout": "500"},
    )
    await asleep.execute(f"BEGIN; UPDATE users SET turn = 1 WHERE id = '{user.id}'")
    await asleep.prepare("SELECT 1")  # and never executed: the server takes it for at work
    await world.store.unblock()
    await unavailable(world.store, users.set_disabled, user.id, 1)
    async with asyncio.timeout(SECONDS):
        while (await world.store.read(users.get_user, user.id)).disabled_at is None:
            await world.store.unblock()
            with suppress(Unavailable):
                await world.store.write(users.set_disabled, user.id, 1)


async def test_a_unit_that_gets_on_may_take_longer_than_any_answer(world: World) -> None:
    def slow() -> Unit[int]:
        for _ in range(3):
            yield Statement(text("SELECT pg_sleep(1.2)"))()
        found: int = (yield COUNT())[0][0]
        return found

    assert await world.store.read(slow) == 0


async def test_of_two_units_that_wait_for_each_other_one_is_run_again(world: World) -> None:
    one, two = await world.user(), await world.user()
    attempts = count()

    def crossing(first: str, second: str) -> Unit[Rows]:
        next(attempts)
        turn = "UPDATE users SET turn = turn + 1 WHERE id = '{}'"
        yield from twice(turn.format(first), "SELECT pg_sleep(0.2)")
        return (yield Statement(text(turn.format(second)))())

    await asyncio.gather(
        world.store.write(crossing, one.id, two.id), world.store.write(crossing, two.id, one.id)
    )
    assert next(attempts) >= 3
    for user in (one, two):
        assert await world.value(schema.users.c.turn, schema.users, user.id) == 2


async def test_a_connection_that_falls_silent_is_given_up_and_with_it_all_of_its_time(
    server: PostgresServer, database: str
) -> None:
    async with proxy(server.port) as between:
        store = PostgresStore(server.url(database, between.port))
        world = World(store)
        await asyncio.gather(*(world.user() for _ in range(3 * WRITERS)))
        assert between.made == WRITERS
        for number in range(between.made):
            between.silence(number)
        assert "in time" in (await unavailable(store, users.count_users)).message
        assert await store.write(users.count_users) == 3 * WRITERS
        await store.close()


async def test_a_commit_whose_answer_is_lost_is_not_taken_for_none(
    server: PostgresServer, database: str
) -> None:
    async with proxy(server.port) as between:
        store = PostgresStore(server.url(database, between.port))
        world = World(store)
        claim = await world.started()
        for drafts in ((message(claim.lease, "itm_1"),), (finished(claim.lease),)):
            between.swallow_the_answer_to(b"COMMIT")
            with pytest.raises(Unavailable):
                await world.record(claim.lease, *drafts, batch_id=repr(drafts[0].body.type))
            again = await world.record(claim.lease, *drafts, batch_id=repr(drafts[0].body.type))
            assert again.events
        types = await world.types(claim.session.id)
        assert types[1:] == ["task.started", "item.started", "item.completed", "task.finished"]
        await store.close()


async def test_reads_are_of_one_moment(world: World) -> None:
    await world.user()

    def counted() -> Unit[tuple[int, int]]:
        before = yield COUNT()
        yield Statement(text("SELECT pg_sleep(0.5)"))()
        return before[0][0], (yield COUNT())[0][0]

    reading = asyncio.create_task(world.store.read(counted))
    await asyncio.wait([reading], timeout=0.2)
    await world.user()
    assert await reading == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        asyncpg.CrashShutdownError("terminating connection because of crash"),
        asyncpg.DiskFullError("could not extend file"),
        asyncpg.SerializationError("could not serialize access"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_by_itself_is_to_be_tried_again(error: Exception) -> None:
    told = translated(error)
    assert isinstance(told, Unavailable)
    assert told.retry_after


@pytest.mark.parametrize(
    "error", [asyncpg.UniqueViolationError("users"), asyncpg.DataError("expected str")]
)
def test_a_wrong_unit_is_not_the_databases_fault(error: Exception) -> None:
    assert translated(error) is error


async def asleep(server: PostgresServer, number: int) -> None:
    """Return once so many units sleep in the server."""
    await until(
        server,
        f"SELECT count(*) = {number} FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    )


async def until(server: PostgresServer, question: str) -> None:
    """Ask the operator's question until the answer is yes."""
    async with asyncio.timeout(SECONDS):
        while not (await server.ask(question))[0][0]:
            continue


ISOLATION = Statement(text("SELECT current_setting('transaction_isolation')"))


def isolation(statements: int) -> Unit[list[str]]:
    found: list[str] = []
    for _ in range(statements):
        found += [row[0] for row in (yield ISOLATION())]
    return found


async def test_a_read_of_one_statement_is_one_round_trip_and_one_of_two_a_transaction(
    world: World,
) -> None:
    assert await world.store.read(isolation, 1) == ["read committed"]
    assert await world.store.read(isolation, 2) == ["repeatable read"] * 2
    assert await world.store.read(isolation, 1) == ["repeatable read"]


async def test_what_only_reads_cannot_write_without_a_transaction_either(world: World) -> None:
    user = await world.user()
    with pytest.raises(Unavailable):
        await world.store.read(lambda: disable(user.id))
    assert (await world.store.read(users.get_user, user.id)).disabled_at is None


def disable(user_id: str) -> Unit[Rows]:
    return (yield DISABLE(user=user_id))

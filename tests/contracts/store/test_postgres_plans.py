"""How PostgreSQL finds what a claim asks for, whatever it last heard of the tables: by an index, row by row."""

import asyncio
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from tests.contracts.store.world import World, finished
from tests.postgres_server import PostgresServer
from zene.domain.sessions import Session
from zene.store import claims, recording
from zene.store.base import Statement, Unit
from zene.store.claims import HandedOut
from zene.store.postgres import PostgresStore
from zene.store.recording import Recorded

MANY = 4000
FEW = 400  # rows read, for two tasks
_HISTORY = """
    INSERT INTO tasks (id, session_id, user_id, place, prompt, model, status, created_at)
    SELECT 'tsk_done' || n, $1, $2, n + 1000, '', 'demo:', 'finished', 0 FROM generate_series(1, $3::int) n
"""
_SESSIONS = """
    INSERT INTO sessions (id, user_id, title, model, approval_policy, created_at, updated_at)
    SELECT 'ses_more' || n, $1, '', 'demo:', 'auto', 0, 0 FROM generate_series(1, $2::int) n
"""
_BACKLOG = """
    INSERT INTO tasks (id, session_id, user_id, place, prompt, model, status, is_head, created_at)
    SELECT 'tsk_more' || n, 'ses_more' || n, $1, 1, '', 'demo:', 'queued', 1, 0
    FROM generate_series(1, $2::int) n
"""
_READ = Statement(
    text("SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")
)


def ended(*args: Any, **kwargs: Any) -> Unit[tuple[Recorded, int]]:
    """The last batch of a task, and what its transaction has read by then, for others, too."""
    recorded = yield from recording.record(*args, **kwargs)
    return recorded, int((yield _READ())[0][0])


@pytest.fixture
def server(postgres: PostgresServer) -> PostgresServer:
    """No other backend plans so."""
    return postgres


def claimed(**terms: Any) -> Unit[tuple[HandedOut, int]]:
    """A claim, and how many rows PostgreSQL has read for it."""
    handed_out = yield from claims.claim(**terms)
    return handed_out, int((yield _READ())[0][0])


async def fill(store: PostgresStore, session: Session, *, is_told: bool) -> None:
    """Many tasks and sessions of the session's user, done and queued; whether PostgreSQL has been told."""
    connection = await asyncpg.connect(store.url)
    try:
        await connection.execute(_HISTORY, session.id, session.user_id, MANY)
        await connection.execute("ANALYZE")
        await connection.execute(_SESSIONS, session.user_id, MANY)
        await connection.execute(_BACKLOG, session.user_id, MANY)
        if is_told:
            await connection.execute("ANALYZE")
    finally:
        await connection.close()


@pytest.mark.parametrize("is_told", [False, True], ids=["old statistics", "new statistics"])
async def test_a_claim_reads_no_more_for_all_that_is_queued_and_done(
    store: PostgresStore, world: World, *, is_told: bool
) -> None:
    hoarder = await world.session(await world.user())
    for session in (hoarder, await world.session(await world.user())):
        await world.submit(session)
    await fill(store, hoarder, is_told=is_told)
    handed_out, read = await world.store.write(
        claimed,
        worker="one",
        home="here",
        now=world.now,
        lease_seconds=15,
        limit=2,
        user_cap=4,
    )
    assert len(handed_out.claims) == 2
    assert read < FEW


@pytest.mark.parametrize("is_told", [False, True], ids=["old statistics", "new statistics"])
async def test_ends_that_come_together_read_no_more_for_it(
    store: PostgresStore, world: World, *, is_told: bool
) -> None:
    claims_ = [await world.started() for _ in range(8)]
    await fill(store, claims_[0].session, is_told=is_told)
    ends = await asyncio.gather(
        *(
            store.write_together(
                claim.lease.user_id,
                ended,
                claim.lease,
                [finished(claim.lease)],
                batch_id="1.1",
                now=world.now,
            )
            for claim in claims_
        )
    )
    assert max(read for _, read in ends) < FEW


async def test_a_claim_for_which_everybody_is_held_waits_for_nobody_and_says_so(
    store: PostgresStore, world: World
) -> None:
    task = await world.submit(await world.session(await world.user()))
    claim_some = partial(
        claims.claim, worker="one", home="here", now=world.now, lease_seconds=15, user_cap=4
    )
    connection = await asyncpg.connect(store.url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM users FOR UPDATE")
            handed_out = await world.store.write(claim_some, limit=2)
            assert (len(handed_out.claims), handed_out.may_be_more) == (0, True)
    finally:
        await connection.close()
    [claim] = (await world.store.write(claim_some, limit=2)).claims
    assert claim.task.id == task.id

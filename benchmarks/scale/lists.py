"""A store that is full: how soon a user gets the list of their sessions, and how soon a long log is replayed.

One user has all the sessions, each with a hundred events and a finished task. The rows are made by SQL that
PostgreSQL and SQLite both take.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.scale.figures import Values
from benchmarks.scale.place import Place, line, people, token
from benchmarks.scale.streams import replays
from tests.servers import Zene, a_free_port

_PAUSE_SECONDS = 0.025  # below the rate that a user may ask at
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
_LOG = (
    "INSERT INTO events (session_id, seq, at, type, data) {sessions}"
    " SELECT '{session}', i + 1, i / 10, 'session.updated', '{{\"title\":\"Another title\"}}' FROM n"
)
_FILLS = (
    "INSERT INTO sessions (id, user_id, title, model, approval_policy, last_seq, created_at, updated_at)"
    " {sessions} SELECT 'ses_' || CAST(1000000 + i AS TEXT), '{user}', 'Title', 'demo:', 'auto', 100, i, i FROM n",
    "INSERT INTO tasks (id, session_id, user_id, place, prompt, model, status, outcome, is_head, created_at)"
    " {sessions} SELECT 'tsk_' || CAST(1000000 + i AS TEXT), 'ses_' || CAST(1000000 + i AS TEXT), '{user}', 1,"
    " 'Go.', 'demo:', 'finished', 'succeeded', 0, i FROM n",
    "INSERT INTO events (session_id, seq, at, type, data)"
    " {sessions}, m(j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM m WHERE j < 100)"
    " SELECT 'ses_' || CAST(1000000 + i AS TEXT), j, i, 'session.updated', '{{\"title\":\"Another title\"}}'"
    " FROM n CROSS JOIN m",
)


async def on_postgres(place: Place, count: int, sessions: int) -> Values:
    """One gateway."""
    [person] = await people(place.store, 1, 0)
    for statement in _statements(person.id, sessions):
        await place.ask(statement)
    await place.ask("ANALYZE")  # as autovacuum has done on a store that has grown
    gateway = await place.many.gateway()
    key = await token(gateway.name, person)
    values = await _lists("list", gateway.name, key, count)
    await gateway.stop()
    return values


async def on_sqlite(folder: Path, count: int, sessions: int, events: int) -> Values:
    """`zene up`; the user is the administrator. A log is replayed, too."""
    await asyncio.to_thread(folder.mkdir)
    variables = {"ZENE_MODEL": "demo:", "ZENE_ALLOW_WEAK_SANDBOX": "true"}
    async with Zene(folder, variables, port=a_free_port()) as zene:
        await zene.up()
        client = await zene.client()
        user_id, long = (await client.me()).id, (await client.create_session()).id
        await zene.kill()
        log = _LOG.format(sessions=_NUMBERS.format(count=events), session=long)
        head = f"UPDATE sessions SET last_seq = {events + 1} WHERE id = '{long}'"
        with closing(sqlite3.connect(folder / "data" / "zene.db")) as file:
            for statement in (*_statements(user_id, sessions), log, head):
                file.execute(statement)
            file.commit()
        await zene.up()
        key = zene.tokens[0].access_token
        return {
            **await _lists("SQLite-list", zene.url, key, count),
            **await replays("SQLite-replay", zene.url, key, long, events),
        }


async def _lists(name: str, url: str, key: str, count: int) -> Values:
    """The first page, again and again."""
    asking, took = await line(url, key), []
    for number in range(count + 5):
        began = time.time()
        status, body, when = await asking.ask("GET", "/v1/sessions")
        assert status == 200, body
        if number >= 5:
            took.append(when - began)
        await asyncio.sleep(_PAUSE_SECONDS)
    asking.close()
    took.sort()
    return {
        f"{name} n": count,
        f"{name} p50": took[count // 2],
        f"{name} p99": took[count * 99 // 100],
    }


def _statements(user_id: str, sessions: int) -> list[str]:
    numbers = _NUMBERS.format(count=sessions)
    return [fill.format(sessions=numbers, user=user_id) for fill in _FILLS]

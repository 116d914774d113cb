"""Tasks from their submit on: how soon they start, how many end in a second, how soon another worker goes on.

A task that may use one token ends `budget_exhausted` before its first call: all of a task but the model.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence

from benchmarks.scale.figures import Values
from benchmarks.scale.place import (
    Line,
    Person,
    Place,
    line,
    new_id,
    now_ms,
    people,
    process,
    token,
)
from benchmarks.scenario import WAIT
from zene.store import tasks

_NO_CALL = {"prompt": "Go.", "max_tokens_total": 1}
_AT_ONCE = 64
_LIMIT_SECONDS = 180.0
_SLOTS = 64  # enough that none is waited for: such a task is mostly its two commits
# When the transaction that wrote it committed, by PostgreSQL itself: just before its flush to disk.
_STARTED = (
    "SELECT task_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM events"
    " WHERE type = 'task.started' AND task_id = ANY($1::text[])"
)
_SPAN = (
    "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8"
    " - extract(epoch FROM min(pg_xact_commit_timestamp(xmin)))::float8 FROM events"
    " WHERE type IN ('task.started', 'task.finished') AND task_id = ANY($1::text[])"
)
_ENDED = "SELECT count(*) FROM tasks WHERE status = 'finished' AND id = ANY($1::text[])"


async def starts(place: Place, count: int) -> Values:
    """One task after the other, on one gateway and one worker: from the 202's last byte to `task.started`."""
    many = place.many
    gateway, worker = await many.gateway(), await many.worker()
    [person] = await people(place.store, 1, 8)
    key = await token(gateway.name, person)
    asking = await line(gateway.name, key)
    followers = [await line(gateway.name, key) for _ in person.sessions]
    for follower, session_id in zip(followers, person.sessions, strict=True):
        await follower.follow(session_id)
    accepted: dict[str, float] = {}
    seen: list[float] = []
    for number in range(count + 8):  # the first of each session warm it up
        at = number % len(person.sessions)
        task_id, when, started = await _start(asking, followers[at], person.sessions[at])
        if number >= 8:
            accepted[task_id] = when
            seen.append((started - when) * 1000)
    committed = {row[0]: row[1] for row in await place.ask(_STARTED, list(accepted))}
    late = [(committed[each] - when) * 1000 for each, when in accepted.items()]
    for each in (asking, *followers):
        each.close()
    await worker.stop()
    await gateway.stop()
    return {
        "start n": count,
        **_percentiles("start", late),
        **_percentiles("start seen", seen),
    }


async def _start(asking: Line, follower: Line, session_id: str) -> tuple[str, float, float]:
    """A task's id, when its 202 was there, and when a follower was told that it has started."""
    path = f"/v1/sessions/{session_id}/tasks"
    posted = asyncio.create_task(asking.ask("POST", path, _NO_CALL))
    started = await follower.until(b"event: task.started")
    status, body, when = await posted
    assert status == 202, body
    await follower.until(b"event: task.finished")
    await asyncio.sleep(
        0.025
    )  # below the rate that a user may ask at; and the worker comes to rest
    return _id(body), when, started


async def rate(place: Place, count: int) -> Values:
    """So many queued tasks of 64 users, then one worker of 64 slots: tasks a second, and CPU of worker and
    PostgreSQL.
    """
    who = await people(place.store, 64, 8)
    task_ids = await _queue(place, who, count)
    server = await place.postmaster()
    worker = await place.many.worker("--slots", str(_SLOTS))
    own, others = process(worker).cpu_seconds(), server.cpu_seconds()
    deadline = time.monotonic() + _LIMIT_SECONDS
    while (await place.ask(_ENDED, task_ids))[0][0] < count:
        assert time.monotonic() < deadline, "the tasks do not end"
        await asyncio.sleep(0.5)  # what looks takes from what is looked at
    spent = process(worker).cpu_seconds() - own
    theirs = server.cpu_seconds() - others
    [[seconds]] = await place.ask(_SPAN, task_ids)
    await worker.stop()
    return {
        "rate n": count,
        "rate": count / seconds,
        "rate CPU": spent / count,
        "rate PostgreSQL CPU": theirs / count,
    }


async def _queue(place: Place, who: Sequence[Person], count: int) -> list[str]:
    """Queue tasks, one after the other over the sessions of all."""
    turns = [(person, n) for n in range(len(who[0].sessions)) for person in who]
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> str:
        person, session = turns[number % len(turns)]
        task_id = new_id("tsk")
        async with limit:
            await place.store.write(
                tasks.submit,
                id=task_id,
                user_id=person.id,
                session_id=person.sessions[session],
                prompt="Go.",
                model=None,
                effort=None,
                max_tokens_total=1,
                now=now_ms(),
            )
        return task_id

    return await asyncio.gather(*map(one, range(count)))


async def recovery(place: Place, rounds: int) -> Values:
    """Kill a worker with eight tasks that wait for the model; until all eight have started elsewhere."""
    many = place.many
    gateway = await many.gateway()
    who = await people(place.store, 8, rounds)
    keys = [await token(gateway.name, person) for person in who]
    lines = [await line(gateway.name, key) for key in keys]
    took = []
    for number in range(rounds):
        task_ids = []
        victim = await many.worker()
        followers = [await line(gateway.name, key) for key in keys]
        for person, asking, follower in zip(who, lines, followers, strict=True):
            session_id = person.sessions[number]
            await follower.follow(session_id)
            path = f"/v1/sessions/{session_id}/tasks"
            status, body, _ = await asking.ask("POST", path, {"prompt": WAIT})
            assert status == 202, body
            task_ids.append(_id(body))
        for follower in followers:
            await follower.until(b"event: step.started")
        heir = await many.worker()
        killed = time.time()
        await victim.kill()
        again = await asyncio.gather(*(each.until(b"event: task.started") for each in followers))
        took.append(max(again) - killed)
        for asking, follower, task_id in zip(lines, followers, task_ids, strict=True):
            await asking.ask("POST", f"/v1/tasks/{task_id}/cancel")
            await follower.until(b"event: task.finished")
            follower.close()
        await heir.stop()
    for each in lines:
        each.close()
    await gateway.stop()
    return {"recovery n": rounds, "recovery": statistics.median(took), "recovery worst": max(took)}


def _id(body: bytes) -> str:
    """Of what an answer describes."""
    found: str = json.loads(body)["id"]
    return found


def _percentiles(name: str, late: Sequence[float]) -> Values:
    """Milliseconds as seconds, so that all times are in one unit."""
    ordered = sorted(late)
    return {
        f"{name} p50": ordered[len(ordered) // 2] / 1000,
        f"{name} p99": ordered[len(ordered) * 99 // 100] / 1000,
    }

"""Open streams of one gateway: what a live event costs it, what a stream takes, how soon a long log is replayed.

Readers and publisher are processes of their own, with as little in them as can be (`benchmarks.bus`).
"""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.bus import other, viewers
from benchmarks.scale.figures import Values
from benchmarks.scale.place import Line, Person, Place, line, now_ms, people, process, token
from zene.domain.events import Draft, SandboxState
from zene.store import log

_EVENT = Draft(body=SandboxState(state="started", ms=1), task_id="tsk_1", step=1, item_id="itm_1")
_BATCH = 500  # events that are appended at once


async def live(place: Place, rates: Sequence[int], seconds: int) -> Values:
    """A thousand sessions with a viewer each, twenty users; events from Redis at each rate in turn."""
    gateway = await place.many.gateway()
    followed = await _followed(place, gateway.name, users=20, each=50)
    [[installation]] = await place.ask("SELECT id FROM installation")
    values: dict[str, float] = {"live n": rates[-1] * seconds}
    for rate in rates:
        folder = place.many.home / f"live-{rate}"
        await asyncio.to_thread(folder.mkdir)
        async with viewers(folder, gateway.name, followed) as late:
            before = process(gateway).cpu_seconds()
            await other(
                "publish", place.redis.url, folder / "sessions", rate, seconds, installation
            )
            spent = process(gateway).cpu_seconds() - before
        late.sort()
        name = f"live {rate}" if rate != rates[-1] else "live"
        values |= {
            f"{name} CPU": spent / len(late),
            f"{name} p50": late[len(late) // 2] / 1000,
            f"{name} p99": late[len(late) * 99 // 100] / 1000,
            f"{name} arrived": len(late) / (rate * seconds) * 100,
        }
    await gateway.stop()
    return values


async def memory(place: Place, users: int) -> Values:
    """A hundred open streams for each user, each on a session of its own."""
    gateway = await place.many.gateway()
    followed = await _followed(place, gateway.name, users=users, each=100)
    before = process(gateway).memory_bytes()
    lines = await _open(gateway.name, followed)
    after = process(gateway).memory_bytes()
    for each in lines:
        each.close()
    await gateway.stop()
    return {"memory n": len(lines), "memory": (after - before) / len(lines)}


async def replay(place: Place, count: int, events: int) -> Values:
    """A client that follows from the beginning of a log."""
    gateway = await place.many.gateway()
    [person] = await people(place.store, 1, 1)
    [session_id] = person.sessions
    for _ in range(0, events, _BATCH):
        await place.store.write(log.append, session_id, [_EVENT] * _BATCH, now_ms())
    key = await token(gateway.name, person)
    values = await replays("replay", gateway.name, key, session_id, events, count)
    await gateway.stop()
    return values


async def replays(
    name: str, url: str, key: str, session_id: str, events: int, count: int = 20
) -> Values:
    """A session's log of one event and `events` more, from its beginning."""
    took = []
    for _ in range(count):
        client = await line(url, key)
        began = time.time()
        await client.follow(session_id, b"id: %d\n" % (events + 1))
        took.append(time.time() - began)
        client.close()
    took.sort()
    return {f"{name} n": count, name: took[count // 2], f"{name} worst": took[-1]}


async def _followed(place: Place, url: str, *, users: int, each: int) -> list[tuple[str, str]]:
    """Sessions, each with the token of whoever may see it."""
    who: Sequence[Person] = await people(place.store, users, each)
    keys = [await token(url, person) for person in who]
    return [
        (session_id, key)
        for person, key in zip(who, keys, strict=True)
        for session_id in person.sessions
    ]


async def _open(url: str, followed: Sequence[tuple[str, str]]) -> list[Line]:
    """A stream for each, which has begun."""
    lines = [await line(url, key) for _, key in followed]
    for each, (session_id, _) in zip(lines, followed, strict=True):
        await each.follow(session_id)
    await asyncio.sleep(2)  # what was only needed to open them is given back
    return lines

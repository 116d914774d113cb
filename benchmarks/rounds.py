"""One round: everything measured once on both, in turns, the one and then the other first.

Each figure is a median within the round; a ratio is taken of two figures of the same round only.
"""

import asyncio
import statistics
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from benchmarks.contenders import Contender, Zene, bare_loop, zene_up
from benchmarks.scenario import ONE, PROGRAMS, SAY, STREAM, TURNS, ModelLog

Values = dict[str, float]

SESSIONS_AT_ONCE = 25


class Counts(Struct, frozen=True, kw_only=True):
    """How often each is done in a round."""

    tasks: int = 5
    outputs: int = 15
    streams: int = 4
    idle_sessions: int = 2000


class Round(Struct, frozen=True, kw_only=True):
    """The figures of one round, by name; milliseconds and bytes."""

    zene: Values
    bare: Values


async def measured(folder: Path, model_url: str, counts: Counts, *, zene_first: bool) -> Round:
    """Run one round in an empty folder."""
    result = Round(zene={}, bare={})
    async with zene_up(f"{model_url}/v1", folder) as zene:
        result.zene["first start"] = zene.child.ready_seconds * 1000
        result.zene.update(await _idle_sessions(zene, counts.idle_sessions))
    async with (
        zene_up(f"{model_url}/v1", folder) as zene,
        bare_loop(f"{model_url}/v1", folder) as bare,
    ):
        result.bare["first start"] = bare.child.ready_seconds * 1000
        pairs: list[tuple[Contender, Values]] = [(bare, result.bare), (zene, result.zene)]
        if zene_first:
            pairs.reverse()
        for measure in _measures(ModelLog(model_url), counts):
            for contender, values in pairs:
                values.update(await measure(contender))
                await contender.settle()
    return result


def _measures(log: ModelLog, counts: Counts) -> Sequence[Callable[[Contender], Awaitable[Values]]]:
    async def sizes(contender: Contender) -> Values:
        return await _request_sizes(contender, log)

    async def outputs(contender: Contender) -> Values:
        return await _first_output(contender, counts.outputs)

    async def fresh(contender: Contender) -> Values:
        return await _fresh_tasks(contender, counts.tasks)

    async def programs(contender: Contender) -> Values:
        took = await _fresh_tasks(contender, counts.tasks, PROGRAMS)
        return {f"{key} of programs": value for key, value in took.items()}

    async def warm(contender: Contender) -> Values:
        return await _warm_tasks(contender, counts.tasks)

    async def streams(contender: Contender) -> Values:
        return await _streams(contender, counts.streams)

    return (_start, sizes, outputs, fresh, programs, warm, _at_once, streams)


async def _start(contender: Contender) -> Values:
    """What a server that nobody has asked anything takes; a moment later, when it has come to rest."""
    await asyncio.sleep(1)
    return {
        "start": contender.child.ready_seconds * 1000,
        "idle memory": contender.child.memory_bytes(),
    }


async def _request_sizes(contender: Contender, log: ModelLog) -> Values:
    """The first task that a server runs warms it up, too."""
    place = await contender.prepare()
    await log.forget()
    await place.task(TURNS)
    sizes = await log.sizes()
    await log.forget()
    return {"first request": sizes[0], "all requests": sum(sizes)}


async def _first_output(contender: Contender, count: int) -> Values:
    took = []
    for _ in range(count):
        place = await contender.prepare()
        took.append((await place.task(SAY)).first * 1000)
        await asyncio.sleep(0.05)  # what a task has begun and not waited for ends
    return {"first output": statistics.median(took)}


async def _fresh_tasks(contender: Contender, count: int, prompt: str = TURNS) -> Values:
    """Each in a place of its own, where nothing has run: what it starts is part of it."""
    places = [await contender.prepare() for _ in range(count)]
    async with _cpu(contender) as cpu:
        took = [(await place.task(prompt)).whole * 1000 for place in places]
    return {"task": statistics.median(took), "task CPU": cpu[0] / count}


async def _warm_tasks(contender: Contender, count: int) -> Values:
    """Each in a place of its own, in which a command has run."""
    places = [await contender.prepare() for _ in range(count)]
    for place in places:
        await place.task(ONE)
    async with _cpu(contender) as cpu:
        took = [(await place.task(TURNS)).whole * 1000 for place in places]
    return {"warm task": statistics.median(took), "warm task CPU": cpu[0] / count}


async def _at_once(contender: Contender) -> Values:
    """Tasks a second of 25 that are submitted together in fresh places."""
    places = [await contender.prepare() for _ in range(SESSIONS_AT_ONCE)]
    async with _cpu(contender) as cpu:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(place.task(TURNS) for place in places))
        took = asyncio.get_running_loop().time() - began
    return {"at once": SESSIONS_AT_ONCE / took, "at once CPU": cpu[0] / SESSIONS_AT_ONCE}


async def _streams(contender: Contender, count: int) -> Values:
    """One after the other in places where a command has run, so that it is streaming that is measured."""
    places = [await contender.prepare() for _ in range(count)]
    for place in places:
        await place.task(ONE)
    async with _cpu(contender) as cpu:
        for place in places:
            await place.task(STREAM)
    return {"stream CPU": cpu[0] / count}


async def _idle_sessions(zene: Zene, count: int) -> Values:
    """On a server that has done nothing yet: after other work the sessions would fit into freed memory.

    The bare loop has none.
    """
    for _ in range(count // 10):  # what the first requests import and cache is no session's
        await zene.client.create_session()
    before = zene.child.memory_bytes()
    for _ in range(count):
        await zene.client.create_session()
    return {"idle session": (zene.child.memory_bytes() - before) / count}


@asynccontextmanager
async def _cpu(contender: Contender) -> AsyncGenerator[list[float], None]:
    """The milliseconds of CPU that its whole tree uses in the block."""
    spent: list[float] = []
    before = contender.child.cpu_seconds()
    yield spent
    spent.append((contender.child.cpu_seconds() - before) * 1000)

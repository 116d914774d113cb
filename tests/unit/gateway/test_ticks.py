"""The clock of all streams: it comes to everybody who is there, and to nobody who has left."""

import asyncio
from collections.abc import Sequence

from zene.gateway.ticks import TICK_SECONDS, Ticks


class Looked:
    """Counts how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.is_over = False
        self.twice = asyncio.Event()

    def look(self) -> None:
        self.looks += 1
        if self.looks == 2:
            self.twice.set()

    def end(self) -> None:
        self.is_over = True


async def until_looked_at_twice(ticks: Ticks, who: Sequence[Looked]) -> None:
    """Let the clock run until then."""
    running = asyncio.create_task(ticks.run())
    try:
        async with asyncio.timeout(10 * TICK_SECONDS):
            for each in who:
                await each.twice.wait()
    finally:
        running.cancel()


async def test_everybody_is_looked_at_every_second_and_nobody_who_has_left() -> None:
    ticks, many, left = Ticks(), [Looked() for _ in range(50)], Looked()
    for each in (*many, left):
        ticks.join(each)
    ticks.leave(left)
    await until_looked_at_twice(ticks, many)
    assert {each.looks for each in many} <= {2, 3}
    assert left.looks == 0


class Broken(Looked):
    """Raises at every look."""

    def look(self) -> None:
        super().look()
        raise RuntimeError("broken")


async def test_one_that_breaks_is_ended_and_everybody_else_is_looked_at() -> None:
    ticks, broken, others = Ticks(), Broken(), [Looked() for _ in range(40)]
    for each in (broken, *others):
        ticks.join(each)
    await until_looked_at_twice(ticks, others)
    assert (broken.looks, broken.is_over) == (1, True)
    assert not any(each.is_over for each in others)

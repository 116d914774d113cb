"""One clock for all streams: each is looked at once a second, and wakes only where there is something to do.

A timer for each would cost as much as its events do, where they are few. They take turns, so that no look is long.
"""

import asyncio
import itertools
from typing import Final, Protocol

from zene import telemetry

TICK_SECONDS: Final = 1.0
_TURNS: Final = 20

log = telemetry.logger(__name__)


class Ticking(Protocol):
    """What is looked at."""

    def look(self) -> None:
        """Called every second."""
        ...

    def end(self) -> None:
        """Called where a look has raised: it is not looked at any more, so it may not go on."""
        ...


class Ticks:
    """Who is looked at. `run` must run while there is anybody."""

    def __init__(self) -> None:
        self._turns: list[set[Ticking]] = [set() for _ in range(_TURNS)]
        self._next = itertools.cycle(self._turns)

    def join(self, who: Ticking) -> None:
        """Look at it from now on."""
        next(self._next).add(who)

    def leave(self, who: Ticking) -> None:
        """Look at it no longer."""
        for turn in self._turns:
            turn.discard(who)

    async def run(self) -> None:
        """Look at everybody, again and again; ends only by being cancelled."""
        while True:
            for turn in self._turns:
                await asyncio.sleep(TICK_SECONDS / _TURNS)
                for who in list(turn):
                    try:
                        who.look()
                    except Exception:  # the others are looked at all the same
                        log.exception("ticks.broke")
                        turn.discard(who)
                        who.end()

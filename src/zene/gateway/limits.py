"""A time limit for many short waits in a row: one timer serves them all, where `asyncio.timeout` sets one for each.

A stream sends with every event, and nearly never waits: its timer cost it a fifth of what an event takes.
"""

import asyncio
from types import TracebackType
from typing import Self


class TimeLimit:
    """As a context manager around each wait of one task: raises TimeoutError after `seconds`. To be closed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._until: float | None = None  # None between the waits
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    def __enter__(self) -> Self:
        self._until = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._ring)
        if self._task is None:
            self._task = asyncio.current_task()
            self._cancelling = self._task.cancelling() if self._task else 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._until = None
        if self._expired and self._task is not None:
            self._expired = False
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._until is None:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._ring)
        elif self._task is not None:
            self._expired = True
            self._task.cancel()

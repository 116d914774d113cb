"""A tenure: how long a worker may act for a task, by its own monotonic clock, which no leap of time moves.

It begins before the lease was asked for, so it ends before anybody can take the lease back. A worker that
stood still past its end finds that out before its next effect, without asking the store.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from zene.domain.errors import LeaseLost
from zene.sandbox.base import Command, Exit, Outcome, Output
from zene.tools.base import Entry
from zene.worker.benches import Bench


class Tenure:
    """Of one lease, which lasts `seconds` from each time it was asked for."""

    def __init__(self, asked_at: float, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = asked_at + seconds

    @property
    def is_over(self) -> bool:
        """Whether somebody else may have the task."""
        return time.monotonic() >= self._ends_at

    def extend(self, asked_at: float) -> None:
        """The lease was extended; `asked_at` is the monotonic time before that was asked for."""
        self._ends_at = asked_at + self._seconds

    def check(self) -> None:
        """Raise LeaseLost once it is over."""
        if self.is_over:
            raise LeaseLost("The lease ran out before it was extended.")

    async def ended(self) -> None:
        """Wait for its end."""
        while True:
            left = self._ends_at - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)


class HeldBench:
    """Implements `tools.base.Workbench`: a session's bench while the tenure lasts, LeaseLost after it."""

    def __init__(self, bench: Bench, tenure: Tenure) -> None:
        self._bench = bench
        self._tenure = tenure

    async def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        """Run a command in the sandbox."""
        await self.warm_up()
        async with aclosing(self._bench.run(command)) as outputs:
            async for output in outputs:
                yield output

    async def read(self, path: str, limit: int) -> bytes:
        """The first bytes of a file."""
        self._tenure.check()
        return await self._bench.read(path, limit)

    async def write(self, path: str, content: bytes) -> None:
        """Write a file whole."""
        await self._opened()
        await self._bench.write(path, content)

    async def list(self, path: str, limit: int) -> Sequence[Entry]:
        """The first names in a folder."""
        self._tenure.check()
        return await self._bench.list(path, limit)

    async def warm_up(self) -> None:
        """Have the workspace open and the sandbox ready."""
        await self._opened()
        await self._bench.warm_up()
        self._tenure.check()

    async def outcome(self, call_id: str) -> Outcome | None:
        """What the running sandbox remembers of a call."""
        self._tenure.check()
        return await self._bench.outcome(call_id)

    async def _opened(self) -> None:
        self._tenure.check()
        await self._bench.open()
        self._tenure.check()

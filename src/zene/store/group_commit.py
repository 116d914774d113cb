"""The threads that touch the file: one that writes, a few that read.

All units that wait when the writer is free share one transaction and one fsync, each inside a SAVEPOINT
of its own, so that an error takes back only its own unit. A unit that comes alone is a transaction itself.
Nobody gets an answer, not even an error, before the commit that it rests on.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zene.domain.errors import Unavailable
from zene.store.base import Unit
from zene.store.connections import connect, drive, ends_transaction, roll_back, translated

GROUP = 256  # units that share a commit
WAITING = 8192  # units that may wait; one more is refused
READERS = 2


class Work:
    """A unit that waits for a thread, and its answer."""

    __slots__ = ("answer", "begin", "error", "result")

    def __init__(self, begin: Callable[[], Unit[Any]], answer: asyncio.Future[Any]) -> None:
        self.begin = begin
        self.answer = answer
        self.result: Any = None
        self.error: Exception | None = None


class Threads:
    """Threads that serve one queue, each with a connection of its own; started by the first unit.

    `serve` runs a group of at most `group` units on a connection and leaves result or error in each.
    """

    def __init__(
        self,
        path: Path,
        serve: Callable[[sqlite3.Connection, Sequence[Work]], None],
        *,
        threads: int,
        group: int,
    ) -> None:
        self._path = path
        self._serve = serve
        self._count = threads
        self._group = group
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, work: Work) -> None:
        """Have it run. Raises Unavailable when too much waits."""
        if self._waiting.qsize() >= WAITING:
            raise Unavailable("Too much waits for the database. Try again.", retry_after=1)
        if not self._threads:
            self._threads = [
                threading.Thread(
                    target=self._run, name=f"store-{self._serve.__name__}-{n}", daemon=True
                )
                for n in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        self._waiting.put(work)

    def close(self) -> None:
        """Run what waits and end the threads. Blocks."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (first := self._waiting.get()) is not None:
            group = self._gather(first)
            try:
                connection = connection or connect(self._path)
                self._serve(connection, group)
            except Exception as err:  # noqa: BLE001 - the thread's edge: the group fails, the thread lives
                for work in group:
                    work.error = translated(err)
            _deliver(group)
        if connection is not None:
            connection.close()

    def _gather(self, first: Work) -> list[Work]:
        group = [first]
        while len(group) < self._group:
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._waiting.put(None)
                break
            group.append(work)
        return group


def write(connection: sqlite3.Connection, group: Sequence[Work]) -> None:
    """Commit the units together, or, where one takes the whole transaction down, each for itself."""
    try:
        _commit(connection, group)
    except sqlite3.Error as err:
        roll_back(connection)
        if len(group) == 1:
            group[0].error = translated(err)
            return
        for work in group:
            write(connection, [work])


def read(connection: sqlite3.Connection, group: Sequence[Work]) -> None:
    """Run each unit on one snapshot."""
    for work in group:
        connection.execute("BEGIN")
        try:
            work.result = drive(connection, work.begin())
        except Exception as err:  # noqa: BLE001 - a unit's error is its caller's
            work.error = translated(err)
        finally:
            roll_back(connection)


def _commit(connection: sqlite3.Connection, group: Sequence[Work]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if len(group) == 1:
        _run_alone(connection, group[0])
        return
    for work in group:
        connection.execute("SAVEPOINT unit")
        if not _succeeds(connection, work):
            connection.execute("ROLLBACK TO unit")
        connection.execute("RELEASE unit")
    connection.execute("COMMIT")


def _run_alone(connection: sqlite3.Connection, work: Work) -> None:
    """Without a SAVEPOINT, for which SQLite would copy every page before it is changed."""
    connection.execute("COMMIT" if _succeeds(connection, work) else "ROLLBACK")


def _succeeds(connection: sqlite3.Connection, work: Work) -> bool:
    """Run the unit; False where its error is its own. Raises what takes the whole transaction down."""
    try:
        work.result, work.error = drive(connection, work.begin()), None
    except Exception as err:
        if ends_transaction(err):
            raise
        work.error = err
    return work.error is None


def _deliver(group: Sequence[Work]) -> None:
    """Give the answers to the loops that wait for them: one call for each loop."""
    for loop in {work.answer.get_loop() for work in group}:
        mine = [work for work in group if work.answer.get_loop() is loop]
        try:
            loop.call_soon_threadsafe(_answer, mine)
        except RuntimeError:
            continue  # the loop has been closed, and whoever waited is gone with it


def _answer(group: Sequence[Work]) -> None:
    for work in group:
        if work.answer.done():
            continue
        if work.error is None:
            work.answer.set_result(work.result)
        else:
            work.answer.set_exception(work.error)

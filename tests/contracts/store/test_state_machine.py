"""The transition table, against a model: whatever comes in whatever order, the store ends where it says."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.contracts.store.world import DAY_MS, World, call, finished, question, stepped, waiting
from tests.postgres_server import PostgresServer, postgres_server
from zene.domain.errors import LeaseLost
from zene.domain.tasks import FROM, POISON_ATTEMPTS, Task
from zene.store import approvals, claims, schema, unstarted
from zene.store.base import Store
from zene.store.claims import Claim
from zene.store.postgres import PostgresStore
from zene.store.sqlite import SqliteStore

CAP = 2
LEASED = ("preparing", "running", "cancelling")


class File:
    """A new database in a file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()

    async def open(self) -> Store:
        store = SqliteStore(f"sqlite:///{Path(self._folder.name)}/zene.db")
        await store.migrate()
        return store

    async def close(self) -> None:
        self._folder.cleanup()


class Database:
    """A new database of the tests' server."""

    server: ClassVar[PostgresServer]

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def open(self) -> Store:
        name = await self._stack.enter_async_context(self.server.database())
        return PostgresStore(self.server.url(name))

    async def close(self) -> None:
        await self._stack.aclose()


class Tasks(RuleBasedStateMachine):
    """Two users, three sessions, a cap of two; leases, deaths, questions, cancels, moves."""

    place: type[File | Database] = File

    claimed: Bundle[Claim] = Bundle("claimed")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.at = self.place()
        self.store = self.run(self.at.open())
        self.world = World(self.store)
        self.status: dict[str, str] = {}
        self.losses: dict[str, int] = {}
        self.order: dict[str, list[str]] = {}
        self.owner: dict[str, str] = {}
        self.started: set[str] = set()
        one, two = self.run(self.world.user()), self.run(self.world.user())
        self.users = [one, two]
        self.sessions = [self.run(self.world.session(user)) for user in (one, one, two)]
        self.tasks: dict[str, Task] = {}
        self.asked: dict[str, str] = {}

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.run(self.at.close())
        self.runner.close()

    def holds(self, claim: Claim) -> bool:
        """Whether the model says that this lease is the living one."""
        return self.owner.get(claim.task.id) == claim.lease.worker + str(claim.lease.epoch)

    def head(self, session_id: str) -> str | None:
        """The session's oldest unfinished task."""
        unfinished = (t for t in self.order[session_id] if self.status[t] != "finished")
        return next(unfinished, None)

    def active(self, user_id: str) -> int:
        """How many of the user's tasks are leased."""
        return sum(
            self.status[task.id] in LEASED
            for task in self.tasks.values()
            if task.user_id == user_id
        )

    def turn(self, task_id: str, *path: str) -> None:
        """One transition after another, each of which the table allows."""
        for target in path:
            assert self.status[task_id] in FROM[target]  # type: ignore[index]  # a status by its name
            self.status[task_id] = target
        if self.status[task_id] not in LEASED:
            self.owner.pop(task_id, None)

    @rule(which=st.integers(0, 2))
    def submit(self, which: int) -> None:
        session = self.sessions[which]
        task = self.run(self.world.submit(session))
        self.tasks[task.id] = task
        self.status[task.id] = "queued"
        self.losses[task.id] = 0
        self.order.setdefault(session.id, []).append(task.id)

    def unstarted(self, session_id: str) -> list[str]:
        """The session's tasks that were never started, in their order."""
        queued = (t for t in self.order.get(session_id, []) if self.status[t] == "queued")
        return [t for t in queued if t not in self.started]

    @rule(which=st.integers(0, 2))
    def interrupt(self, which: int) -> None:
        session = self.sessions[which]
        for task_id in self.order.get(session.id, []):
            if task_id in self.started:
                self.cancelled(task_id)
        behind = self.unstarted(session.id)
        task = self.run(self.world.submit(session, on_busy="interrupt"))
        self.tasks[task.id] = task
        self.status[task.id] = "queued"
        self.losses[task.id] = 0
        order = self.order.setdefault(session.id, [])
        order.insert(order.index(behind[0]) if behind else len(order), task.id)

    @rule(which=st.integers(0, 2), data=st.data())
    def move(self, which: int, data: Any) -> None:
        session = self.sessions[which]
        if not (line := self.unstarted(session.id)):
            return
        moved, other = data.draw(st.sampled_from(line)), data.draw(st.sampled_from(line))
        to = unstarted.Change(before=other)
        self.run(self.store.write(unstarted.change, session.user_id, moved, to, self.world.now))
        if moved != other:
            order = self.order[session.id]
            order.remove(moved)
            order.insert(order.index(other), moved)

    @rule(target=claimed, limit=st.integers(1, 3))
    def claim(self, limit: int) -> Any:
        ready = [t for s in self.order for t in [self.head(s)] if t and self.status[t] == "queued"]
        possible = sum(
            min(CAP - self.active(u.id), sum(self.tasks[t].user_id == u.id for t in ready))
            for u in self.users
        )
        got = self.run(self.world.claim(limit, user_cap=CAP))
        assert {claim.task.id for claim in got} <= set(ready)
        assert (len(got) > 0) == (possible > 0)
        assert len(got) <= min(limit, possible)
        for claim in got:
            self.turn(claim.task.id, "preparing")
            self.started.add(claim.task.id)
            self.owner[claim.task.id] = claim.lease.worker + str(claim.lease.epoch)
        return multiple(*got)

    def fenced(self, claim: Claim, work: Any) -> bool:
        """Do it as that lease's owner: refused where the model says that it is another's."""
        try:
            self.run(work)
        except LeaseLost:
            assert not self.holds(claim)
            return False
        assert self.holds(claim)
        return True

    @rule(claim=claimed)
    def step(self, claim: Claim) -> None:
        lease, held = claim.lease, self.holds(claim)
        number = self.run(self.world.task(claim.task)).steps + 1
        if self.fenced(claim, self.world.step(lease, number)) and held:
            task_id = claim.task.id
            if self.status[task_id] == "preparing":
                self.turn(task_id, "running")
            if self.status[task_id] == "cancelling":
                self.turn(task_id, "finished")
            else:
                self.run(self.world.record(lease, stepped(lease, number)))
                self.losses[task_id] = 0

    @rule(claim=claimed)
    def finish(self, claim: Claim) -> None:
        if self.fenced(claim, self.world.record(claim.lease, finished(claim.lease))):
            self.turn(claim.task.id, "finished")

    @rule(claim=claimed)
    def ask(self, claim: Claim) -> None:
        lease, item, approval = claim.lease, self.world.id("itm"), self.world.id("apr")
        until = self.world.now + DAY_MS
        drafts = call(lease, item), question(lease, item, approval, until), waiting(lease)
        if self.fenced(claim, self.world.record(lease, *drafts)):
            task_id = claim.task.id
            if self.status[task_id] == "cancelling":
                self.turn(task_id, "finished")
                return
            if self.status[task_id] == "preparing":
                self.turn(task_id, "running")
            self.turn(task_id, "waiting")
            self.asked[task_id] = approval

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), allow=st.booleans())
    def decide(self, data: Any, allow: bool) -> None:  # noqa: FBT001 - drawn by name
        task_id = data.draw(st.sampled_from(sorted(self.asked)))
        if self.status[task_id] != "waiting":
            del self.asked[task_id]
            return
        answer = approvals.decide
        options = {"decision": "allow" if allow else "deny", "scope": "once", "note": ""}
        user_id, approval_id = self.tasks[task_id].user_id, self.asked.pop(task_id)
        self.run(self.store.write(answer, user_id, approval_id, now=self.world.now, **options))
        self.turn(task_id, "queued")

    @rule(claim=claimed)
    def hand_over(self, claim: Claim) -> None:
        given = self.store.write(claims.hand_over, claim.lease, now=self.world.now, worked_ms=1)
        if self.fenced(claim, given):
            cancelled = self.status[claim.task.id] == "cancelling"
            self.turn(claim.task.id, "finished" if cancelled else "queued")

    @rule(all_at_once=st.booleans())
    def die(self, all_at_once: bool) -> None:  # noqa: FBT001 - drawn by name
        if all_at_once:
            self.run(self.store.write(claims.take_over_all, now=self.world.now))
        else:
            self.world.now += 16_000
            self.run(self.world.sweep())
        for task_id, status in list(self.status.items()):
            if status == "cancelling":
                self.turn(task_id, "finished")
            elif status in LEASED:
                self.losses[task_id] += 1
                self.turn(task_id, "queued")
                if self.losses[task_id] >= POISON_ATTEMPTS:
                    self.turn(task_id, "finished")

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        self.run(self.world.cancel(self.tasks[task_id]))
        self.cancelled(task_id)

    def cancelled(self, task_id: str) -> None:
        """What a cancel makes of it."""
        match self.status[task_id]:
            case "queued" | "waiting":
                self.turn(task_id, "finished")
            case "preparing" | "running":
                self.turn(task_id, "cancelling")
            case _:
                pass

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        for task_id, status in self.status.items():
            assert self.run(self.world.task(self.tasks[task_id])).status == status
        for user in self.users:
            active = self.run(self.world.value(schema.users.c.active, schema.users, user.id))
            assert active == self.active(user.id) <= CAP
        heads = {head for each in self.order if (head := self.head(each))}
        for task_id in self.tasks:
            is_head = self.run(self.world.value(schema.tasks.c.is_head, schema.tasks, task_id))
            assert is_head == (task_id in heads)

    @invariant()
    def what_is_finished_has_one_end_and_nothing_open(self) -> None:
        for session in self.sessions:
            events = self.run(self.world.log(session.id))
            ends = [event.task_id for event in events if event.type == "task.finished"]
            done = [t for t in self.order.get(session.id, []) if self.status[t] == "finished"]
            assert sorted(ends, key=str) == sorted(done)
            begun = {e.item_id for e in events if e.type == "item.started" and e.task_id in done}
            closed = [e.item_id for e in events if e.type == "item.completed" and e.task_id in done]
            assert sorted(begun, key=str) == sorted(closed, key=str)


class TasksOnPostgres(Tasks):
    """The same on a server."""

    place = Database


Tasks.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TasksOnPostgres.TestCase.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)
TestTasks = Tasks.TestCase


class TestTasksOnPostgres(TasksOnPostgres.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis
    """With a server of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        Database.server = cls.enterClassContext(postgres_server())

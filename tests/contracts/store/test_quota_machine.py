"""The hard quota, against a model: whatever comes in whatever order, no call begins that may exceed the limit."""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.contracts.store.world import DAY_MS, World, finished, stepped, waiting
from zene.domain.quotas import Account
from zene.domain.situation import Granted, Refused
from zene.store import claims, tasks
from zene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from zene.store.claims import Claim

LEAST = 1024
SIZES = st.integers(1, 4_000)
LIMITS = st.integers(0, 12_000)


class Tokens(RuleBasedStateMachine):
    """A user with five tasks at once: calls begin, end and die while the limit and the day change."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteStore(f"sqlite:///{Path(self.folder.name)}/zene.db")
        self.world = World(self.store)
        self.run(self.store.migrate())
        self.user = self.run(self.world.user())
        self.sessions = [self.run(self.world.session(self.user)) for _ in range(5)]
        for session in self.sessions:
            self.run(self.world.submit(session))
        self.idle: dict[str, Claim] = {}
        self.open: dict[str, tuple[Claim, int, int]] = {}
        self.waiting: dict[str, int] = {}
        self.promised: dict[str, int] = {}
        self.limit: int | None = None
        self.period: Literal["day", "month", "total"] = "total"
        self.used_on: dict[str, int] = {}
        self.before = Account(used=0, reserved=0, limit=None)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    @property
    def day(self) -> str:
        return datetime.fromtimestamp(self.world.now / 1000, UTC).date().isoformat()

    @property
    def used(self) -> int:
        """What counts now."""
        window = {"day": self.day, "month": self.day[:7], "total": ""}[self.period]
        return sum(tokens for day, tokens in self.used_on.items() if day.startswith(window))

    @property
    def reserved(self) -> int:
        return sum(bound + cap for _, bound, cap in self.open.values())

    def spend(self, tokens: int) -> None:
        self.used_on[self.day] = self.used_on.get(self.day, 0) + tokens

    @initialize(tokens=LIMITS)
    def begin_with_a_limit(self, tokens: int) -> None:
        self.change_the_limit(tokens, "day")
        self.claim()

    @rule()
    def claim(self) -> None:
        for claim in self.run(self.world.claim(5, user_cap=5)):
            self.idle[claim.task.id] = claim

    @precondition(lambda self: self.idle)
    @rule(data=st.data(), bound=SIZES, cap=SIZES)
    def reserve(self, data: Any, bound: int, cap: int) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.idle)))
        claim = self.idle.pop(task_id)
        number = self.run(self.world.task(claim.task)).steps + 1
        grant = self.run(self.world.step(claim.lease, number, bound=bound, cap=cap)).grant
        least = min(cap, LEAST)
        most = cap if self.limit is None else self.limit - self.used - bound
        room = most if self.limit is None else most - self.reserved
        if room >= least:
            assert grant == Granted(min(cap, room))
            self.open[task_id] = claim, bound, min(cap, room)
            self.promised.pop(task_id, None)
        elif most >= least:
            assert grant == Refused("wait")
            self.run(self.world.record(claim.lease, waiting(claim.lease, "quota")))
            self.promised.pop(task_id, None)
            self.waiting[task_id] = bound + least
        else:
            assert grant == Refused("exhausted")
            self.promised.pop(task_id, None)
            self.run(self.world.submit(claim.session))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), part=st.integers(0, 100))
    def settle(self, data: Any, part: int) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.open)))
        claim, bound, cap = self.open.pop(task_id)
        tokens = bound * part // 100, cap * part // 100
        number = self.run(self.world.task(claim.task)).steps
        self.run(self.world.record(claim.lease, stepped(claim.lease, number, tokens=tokens)))
        self.spend(sum(tokens))
        self.idle[task_id] = claim

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["finish", "hand over"]))
    def leave(self, data: Any, how: str) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.open)))
        claim, bound, cap = self.open.pop(task_id)
        if how == "finish":
            self.run(self.world.record(claim.lease, finished(claim.lease)))
            self.run(self.world.submit(claim.session))
        else:
            given = claims.hand_over
            self.run(self.store.write(given, claim.lease, now=self.world.now, worked_ms=1))
        self.spend(bound + cap)

    @rule()
    def die(self) -> None:
        self.run(self.store.write(claims.take_over_all, now=self.world.now))
        for _, bound, cap in self.open.values():
            self.spend(bound + cap)
        self.open.clear()
        self.idle.clear()
        for session in self.sessions:
            self.run(self.world.submit(session))  # the last one may have ended too many workers
        for task_id in list(self.promised):
            if self.status(task_id) == "finished":
                del self.promised[task_id]

    @rule(tokens=st.none() | LIMITS | LIMITS, period=st.sampled_from(["day", "month", "total"]))
    def change_the_limit(
        self, tokens: int | None, period: Literal["day", "month", "total"]
    ) -> None:
        self.run(self.world.allow(self.user.id, tokens, period))
        self.limit, self.period = tokens, period
        self.look_after_the_waiting()

    @rule()
    def a_day_begins(self) -> None:
        self.world.now += DAY_MS

    @rule()
    def resume(self) -> None:
        self.run(self.world.resume(self.user.id))
        self.look_after_the_waiting()

    def look_after_the_waiting(self) -> None:
        """What fits was queued, the oldest first, and what cannot fit was ended."""
        most = 1 << 62 if self.limit is None else self.limit - self.used
        free = most - self.reserved - sum(self.promised.values())
        for task_id, wanted in sorted(self.waiting.items()):
            if wanted > most:
                assert self.status(task_id) == "finished"
                del self.waiting[task_id]
            elif wanted <= free:
                assert self.status(task_id) == "queued"
                free -= wanted
                self.promised[task_id] = self.waiting.pop(task_id)
            else:
                assert self.status(task_id) == "waiting"
                assert self.reserved + sum(self.promised.values()) > 0, "it would wait for ever"

    def status(self, task_id: str) -> str:
        task, _ = self.run(self.store.read(tasks.get_task, self.user.id, task_id))
        return str(task.status)

    @invariant()
    def the_account_is_the_models(self) -> None:
        account = self.run(self.world.account(self.user.id))
        assert account.reserved == self.reserved
        assert account.limit == self.limit
        if self.limit is not None:
            assert account.used == self.used

    @invariant()
    def used_and_reserved_never_exceed_the_limit_by_a_call(self) -> None:
        account, before = self.run(self.world.account(self.user.id)), self.before
        if account.limit is not None and account.limit == before.limit:
            total = account.used + account.reserved
            assert total <= account.limit or total <= before.used + before.reserved
        self.before = account


Tokens.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestTokens = Tokens.TestCase

"""People at work over any gateway: they submit, cancel, decide and watch, and try again whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from tests.chaos.scene import POOR, Scene
from zene.client import AsyncClient
from zene.domain.errors import Conflict, TooMany, Unavailable
from zene.domain.events import FLEETING

if TYPE_CHECKING:
    from zene.domain.approvals import Decision
    from zene.domain.sessions import ApprovalPolicy

T = TypeVar("T")

SESSIONS = 3  # of a person
ANSWERED_SECONDS = 60.0


class Accepted(Struct, frozen=True):
    """A submit that was answered: the task, and the number that its effects bear."""

    task_id: str
    session_id: str
    number: int
    key: str


@dataclass
class Diary:
    """What people were told; `seen` are the places of the durable events that each follower got, in order."""

    accepted: list[Accepted] = field(default_factory=list)
    sessions: dict[str, AsyncClient] = field(default_factory=dict)
    seen: dict[str, list[int]] = field(default_factory=dict)
    decided: int = 0
    cancelled: int = 0


class Audience:
    """Coroutines that watch for as long as the play lasts, in a group that fails with any of them."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    def enter(self, watching: Coroutine[None, None, None]) -> None:
        """Watch from now on."""
        self._tasks.append(self._group.create_task(watching))

    def leave(self) -> None:
        """The play is over."""
        for task in self._tasks:
            task.cancel()


@dataclass
class Play:
    """What all people of a play share."""

    audience: Audience
    diary: Diary = field(default_factory=Diary)
    numbers: "count[int]" = field(default_factory=lambda: count(1))


class Person:
    """One of them; followers go on to the end of their session's log."""

    def __init__(self, scene: Scene, number: int, play: "Play") -> None:
        self._audience = play.audience
        self._clients = scene.clients[number]
        self._is_poor = self._clients is scene.poor
        self._random = Random(scene.random.random())
        self._diary = play.diary
        self._numbers = play.numbers
        self._sessions: list[str] = []

    async def work(self, stop: asyncio.Event) -> None:
        """Submit, and now and then cancel, until it is over."""
        while not stop.is_set():
            session_id = await self._session()
            task = await self._submit(session_id)
            if self._random.random() < 0.15:
                await self._pause(0.5)
                await patiently(partial(self._any().cancel, task.task_id))
                self._diary.cancelled += 1
            await self._pause(0.4)

    async def decide(self) -> None:
        """Answer what is asked, over two gateways at once: one of them is told that it was too late."""
        while True:
            page = await patiently(lambda: self._any().approvals(status="pending"))
            for approval in page.items:
                await self._answer(approval.id)
            await self._pause(0.4)

    async def _answer(self, approval_id: str) -> None:
        decision: Decision = "allow" if self._random.random() < 0.8 else "deny"

        async def decided(client: AsyncClient) -> bool:
            with suppress(Conflict):
                await patiently(lambda: client.decide(approval_id, decision))
                return True
            return False

        told = await asyncio.gather(*map(decided, self._clients))
        assert sum(told) <= 1, f"{approval_id} was decided twice"
        self._diary.decided += sum(told)

    async def _session(self) -> str:
        if len(self._sessions) >= SESSIONS:
            return self._random.choice(self._sessions)
        asks = len(self._sessions) == SESSIONS - 1
        policy: ApprovalPolicy = "ask_for_writes" if asks else "auto"
        model = POOR if self._is_poor else None
        session = await patiently(
            lambda: self._any().create_session(approval_policy=policy, model=model)
        )
        self._sessions.append(session.id)
        self._diary.sessions[session.id] = self._clients[0]
        seen = self._diary.seen[session.id] = []
        self._audience.enter(follow(self._any(), session.id, seen))
        return session.id

    async def _submit(self, session_id: str) -> Accepted:
        number = next(self._numbers)
        key, prompt = f"chaos-{number}", f"Do number {number}."
        times = self._random.choice((1, 1, 2))

        async def submitted(client: AsyncClient) -> str:
            task = await patiently(lambda: client.submit(session_id, prompt, idempotency_key=key))
            return task.id

        chosen = self._random.sample(self._clients, times)
        ids = await asyncio.gather(*map(submitted, chosen))
        assert len(set(ids)) == 1, f"{key} made {ids}"
        accepted = Accepted(ids[0], session_id, number, key)
        self._diary.accepted.append(accepted)
        return accepted

    def _any(self) -> AsyncClient:
        return self._random.choice(self._clients)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(self._random.uniform(0, seconds))


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: with the same key, asking again is the same request."""
    async with asyncio.timeout(ANSWERED_SECONDS):
        while True:
            try:
                return await ask()
            except (Unavailable, TooMany):
                await asyncio.sleep(0.1)


async def follow(client: AsyncClient, session_id: str, seen: list[int]) -> None:
    """Note every durable event of a session as it comes, for ever."""
    async with aclosing(client.follow(session_id)) as events:
        async for event in events:
            seen.extend([] if event.type in FLEETING else [event.seq])

"""The agent's loop on the real store: started anew from it after every commit, it asks the model the same.

This also keeps the tests' own record of batches honest: it says what the store says.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.contracts.store.world import situation_of
from tests.unit.agent.test_restart import STORIES, World, distinct, tell
from zene.agent.base import Batch
from zene.domain.events import TaskWaiting
from zene.domain.situation import Grant, Situation
from zene.domain.tasks import Lease
from zene.domain.users import Role
from zene.store import approvals, claims, recording, sessions, steers, tasks, users
from zene.store.sqlite import SqliteStore

MEMBER = Role.MEMBER
NAMES = [name for name, story in STORIES.items() if not story.is_slow]


class Stored:
    """A session in a store, and the same session in the tests' record."""

    def __init__(self, store: SqliteStore, world: World) -> None:
        self.store = store
        self.world = world
        self.lost: set[object] = set()
        self.batches = count()

    async def begin(self) -> None:
        await self.store.write(users.create_user, "usr_1", "a@b.example", "hash", MEMBER, 1)
        await self.store.write(
            sessions.create_session,
            id="ses_1",
            user_id="usr_1",
            project_id=None,
            title="",
            model="scripted",
            effort=None,
            approval_policy=self.world.story.policy,
            now=1,
        )
        await self.store.write(
            tasks.submit,
            id="tsk_1",
            user_id="usr_1",
            session_id="ses_1",
            prompt=self.world.record.task.prompt,
            model="scripted",
            effort=None,
            max_tokens_total=None,
            now=1,
        )

    async def claim(self) -> Lease:
        found = await self.store.write(
            claims.claim, worker="w", home="here", now=1000, lease_seconds=1e6, limit=1, user_cap=4
        )
        return found.claims[0].lease

    async def run(self, lease: Lease) -> None:
        """A run from what the store says; it dies with each batch in its hands, once."""
        situation = await self.store.read(situation_of, lease)
        unheard = await self.store.read(steers.unheard, lease.task_id)
        assert {each.id: each.text for each in unheard} == self.world.record.unheard
        assert comparable(situation) == comparable(self.world.record.situation())
        async with aclosing(self.world.start(situation)) as loop:
            grant: Grant | None = None
            while self.world.record.end is None:
                batch = await loop.asend(grant)
                moment = (self.world.moment, type(batch.drafts[-1].body) if batch.drafts else None)
                if moment not in self.lost:
                    self.lost.add(moment)
                    return
                grant = await self.commit(lease, batch)

    async def commit(self, lease: Lease, batch: Batch) -> Grant | None:
        """Give the batch to both, and before it what the user says."""
        for steer_id, text in self.world.speak(batch).items():
            await self.store.write(steers.steer, "usr_1", "tsk_1", steer_id, text, 1000)
        recorded = await self.store.write(
            recording.record,
            lease,
            batch.drafts,
            batch_id=f"{lease.epoch}.{next(self.batches)}",
            intents=batch.intents,
            reserve=batch.reserve,
            output_cap=16_384,
            now=1000,
        )
        assert self.world.record.commit(batch) == recorded.grant
        return recorded.grant

    async def decide(self) -> None:
        status = self.world.answer_people()
        for asked in await self.store.read(approvals.pending_of, "ses_1"):
            await self.store.write(
                approvals.decide,
                "usr_1",
                asked.id,
                decision="allow" if status == "allowed" else "deny",
                scope="once",
                note=self.world.record.approvals[asked.item_id].note,
                now=1000,
            )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SqliteStore, None]:
    opened = SqliteStore(f"sqlite:///{tmp_path}/zene.db")
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.mark.parametrize("name", [name for name in NAMES if "expired" not in name])
async def test_started_anew_from_the_store_the_loop_asks_the_model_the_same(
    name: str, store: SqliteStore, tmp_path: Path
) -> None:
    whole = World(STORIES[name], tmp_path / "whole")
    await tell(whole)
    world = World(STORIES[name], tmp_path / "stored")
    stored = Stored(store, world)
    await stored.begin()
    while not world.is_over:
        lease = await stored.claim()
        while world.record.end is None:
            await stored.run(lease)
        if isinstance(world.record.end, TaskWaiting):
            await stored.decide()
    assert distinct(world.bodies()) == whole.bodies()
    task, _ = await store.read(tasks.get_task, "usr_1", "tsk_1")
    assert task.outcome == "succeeded"


def comparable(situation: Situation) -> Situation:
    """Without what only one of the two knows: the task's row, and when approvals were asked for."""
    decided = {key: replace(a, **TIMELESS) for key, a in situation.approvals.items()}
    return replace(situation, task=None, approvals=decided)


TIMELESS = {"created_at": 0, "expires_at": 0, "decided_at": None, "decided_by": None, "scope": None}

"""The same key, the same answer, one thing: however often and however close together it is asked for."""

import asyncio

import pytest

from tests.contracts.store.world import World
from zene.domain.errors import Conflict, NotFound
from zene.domain.projects import Project
from zene.store import idempotency, projects, schema
from zene.store.base import Unit
from zene.store.idempotency import Answer, Key


async def make(
    world: World, user_id: str, key: str = "k", fingerprint: str = "f"
) -> tuple[Answer, Project | None]:
    project_id = world.id("prj")

    def create() -> Unit[Project]:
        return projects.create_project(project_id, user_id, "One", world.now)

    return await world.store.write(
        idempotency.once,
        Key(user_id=user_id, key=key, fingerprint=fingerprint),
        world.now,
        create,
        lambda made: made.id,
    )


async def test_a_repeated_request_makes_one_thing(world: World) -> None:
    user = await world.user()
    answers = await asyncio.gather(*(make(world, user.id) for _ in range(5)))
    assert len({answer.text for answer, _ in answers}) == 1
    assert [answer.is_new for answer, _ in answers].count(True) == 1
    assert [made is not None for _, made in answers].count(True) == 1
    assert await world.count(schema.projects) == 1


async def test_another_request_under_the_key_is_a_conflict(world: World) -> None:
    user = await world.user()
    await make(world, user.id)
    with pytest.raises(Conflict) as refused:
        await make(world, user.id, fingerprint="other")
    assert refused.value.code == "idempotency_key_reused"


async def test_a_key_is_one_users(world: World) -> None:
    one, two = await world.user(), await world.user()
    first, second = await make(world, one.id), await make(world, two.id)
    assert first[0].text != second[0].text


async def test_a_refused_request_keeps_no_key(world: World) -> None:
    user = await world.user()
    key = Key(user_id=user.id, key="k", fingerprint="f")

    def nothing() -> Unit[Project]:
        return projects.get_project(user.id, "prj_none")

    await world.fails(NotFound, idempotency.once, key, world.now, nothing, str)
    assert (await make(world, user.id))[0].is_new


async def test_old_keys_are_forgotten(world: World) -> None:
    user = await world.user()
    await make(world, user.id, "old")
    world.now += 1000
    await make(world, user.id, "new")
    await world.store.write(idempotency.forget, before=world.now, limit=10)
    assert (await make(world, user.id, "new"))[0].is_new is False
    assert (await make(world, user.id, "old"))[0].is_new is True

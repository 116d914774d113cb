"""Sessions and projects: their owner's alone, their state told by their tasks, gone without a trace."""

import pytest

from tests.contracts.store.world import World, call, message, question, stepped, waiting, written
from zene.domain.errors import NotFound
from zene.domain.sessions import Session
from zene.store import idempotency, jobs, projects, schema, sessions
from zene.store.idempotency import Key


async def status(world: World, session: Session) -> str:
    found = await world.store.read(sessions.get_session, session.user_id, session.id)
    return found.status


async def test_a_sessions_status_is_its_tasks(world: World) -> None:
    session = await world.session(await world.user())
    assert await status(world, session) == "idle"
    await world.submit(session)
    assert await status(world, session) == "queued"
    (claim,) = await world.claim()
    assert await status(world, session) == "running"
    await world.asked(claim)
    assert await status(world, session) == "requires_action"
    await world.cancel(claim.task)
    assert await status(world, session) == "idle"
    await world.submit(session)
    (claim,) = await world.claim()
    await world.finish(claim.lease, "failed")
    assert await status(world, session) == "error"


async def test_a_list_is_the_owners_newest_first_in_pages(world: World) -> None:
    user = await world.user()
    made = [await world.session(user) for _ in range(5)]
    await world.session(await world.user())
    first, cursor = await world.store.read(sessions.list_sessions, user.id, None, 3)
    rest, end = await world.store.read(sessions.list_sessions, user.id, cursor, 3)
    assert [each.id for each in first + rest] == [each.id for each in reversed(made)]
    assert end is None


async def test_a_change_is_an_event_that_names_what_changed(world: World) -> None:
    session = await world.session(await world.user())
    changed, events = await world.store.write(
        sessions.update_session, session.user_id, session.id, title="New", now=world.now
    )
    assert (changed.title, changed.model) == ("New", session.model)
    assert bytes(events[0].data) == b'{"title":"New"}'


async def test_a_foreign_session_is_none(world: World) -> None:
    session, other = await world.session(await world.user()), await world.user()
    with pytest.raises(NotFound):
        await world.store.read(sessions.get_session, other.id, session.id)
    args = (other.id, session.id)
    await world.fails(NotFound, sessions.update_session, *args, title="Mine", now=world.now)
    await world.fails(NotFound, sessions.delete_session, *args, world.now, world.id("job"))
    assert await status(world, session) == "idle"


async def test_a_project_is_its_owners(world: World) -> None:
    user, other = await world.user(), await world.user()
    project = await world.store.write(
        projects.create_project, world.id("prj"), user.id, "One", world.now
    )
    ready = await world.store.write(
        projects.set_ready, user.id, project.id, files=3, size=99, now=world.now
    )
    assert (ready.state, ready.files, ready.bytes) == ("ready", 3, 99)
    assert await world.store.read(projects.list_projects, user.id, None, 10) == ([ready], None)
    assert await world.store.read(projects.list_projects, other.id, None, 10) == ([], None)
    await world.fails(
        NotFound, projects.delete_project, other.id, project.id, world.now, world.id("job")
    )


async def test_a_deleted_project_leaves_its_sessions(world: World) -> None:
    user = await world.user()
    project = await world.store.write(
        projects.create_project, world.id("prj"), user.id, "One", world.now
    )
    made = [await world.session(user, project=project) for _ in range(3)]
    found, _ = await world.store.read(sessions.list_sessions, user.id, None, 9, project.id)
    assert [each.id for each in found] == [each.id for each in reversed(made)]
    await world.store.write(
        projects.delete_project, user.id, project.id, world.now, world.id("job")
    )
    for left in (1, 0):
        assert await world.store.write(projects.purge_project, project.id, limit=2) is (left == 1)
        found, _ = await world.store.read(sessions.list_sessions, user.id, None, 9)
        assert sum(each.project_id == project.id for each in found) == left
    assert await world.count(schema.projects) == 0
    assert await status(world, made[0]) == "idle"


async def test_deleting_ends_every_task_at_once(world: World) -> None:
    claim = await world.started()
    await world.submit(claim.session)
    events = await world.store.write(
        sessions.delete_session, claim.lease.user_id, claim.session.id, world.now, world.id("job")
    )
    types = [event.type for event in events]
    assert types == ["task.finished", "task.finished", "session.deleted"]
    assert await world.claim() == []
    assert await world.value(schema.users.c.active, schema.users, claim.lease.user_id) == 0
    await world.fails(
        NotFound, sessions.delete_session, claim.lease.user_id, claim.session.id, world.now, "job_2"
    )
    job = await world.store.write(jobs.claim_job, worker="one", now=world.now, lease_seconds=9)
    assert job is not None
    assert (job.kind, job.payload) == ("delete_session", {"session_id": claim.session.id})


async def test_a_purge_in_small_steps_leaves_no_row(world: World) -> None:
    claim = await world.started()
    lease, session = claim.lease, claim.session
    for number in range(1, 8):
        text, run, asked = (world.id("itm"), world.id("itm"), world.id("apr"))
        await world.step(lease, number)
        await world.record(lease, message(lease, text), written(lease, text), call(lease, run))
        until = world.now + 1000
        await world.record(lease, stepped(lease, number), question(lease, run, asked, until))
    await world.record(lease, waiting(lease))
    await world.do(schema.rules.insert().values(session_id=session.id, tool="shell", created_at=0))
    key = Key(user_id=lease.user_id, key="k", fingerprint="f", session_id=session.id)
    await world.store.write(
        idempotency.once,
        key,
        world.now,
        lambda: projects.create_project("prj_1", lease.user_id, "One", world.now),
        lambda made: made.id,
    )
    other = await world.session(await world.user())
    assert all((await counts(world)).values())
    await world.store.write(
        sessions.delete_session, lease.user_id, session.id, world.now, world.id("job")
    )
    left = await counts(world)
    is_more = True
    while is_more:
        before = sum(left.values())
        is_more = await world.store.write(sessions.purge_session, session.id, limit=5)
        left = await counts(world)
        assert 0 < before - sum(left.values()) <= 5
    assert left == dict.fromkeys(left, 0) | {"sessions": 1, "events": 1}
    assert await status(world, other) == "idle"


async def counts(world: World) -> dict[str, int]:
    return {table.name: await world.count(table) for table in TABLES}


TABLES = (
    schema.events, schema.items, schema.model_calls, schema.approvals, schema.rules,
    schema.idempotency, schema.tasks, schema.sessions,
)  # fmt: skip


async def test_what_is_known_tells_whose_files_may_be_there(world: World) -> None:
    user = await world.user()
    session = await world.session(user)
    project = await world.store.write(
        projects.create_project, world.id("prj"), user.id, "One", world.now
    )
    assert await world.store.read(sessions.known) == ([session.id], [project.id])

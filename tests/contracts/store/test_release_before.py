"""A release's migration lets the release before go on: its statements, as it has them, on this one's schema."""

from typing import Any

from sqlalchemy import text

from tests.contracts.store.world import World
from zene.domain.sessions import Session
from zene.domain.tasks import Task
from zene.store import queue, schema, sessions, tasks
from zene.store.base import Rows, Statement, Unit

# As 0001 knows the tables: none of what 0002 has added is named.
USER = (
    "INSERT INTO users (id, email, password_hash, role, created_at)"
    " VALUES (:user, 'before@example.org', 'hash', 'member', 1)"
)
SESSION = (
    "INSERT INTO sessions (id, user_id, project_id, title, model, effort, approval_policy, created_at,"
    " updated_at) VALUES (:session, :user, NULL, '', 'demo:', NULL, 'auto', 1, 1)"
)
HOLD = "UPDATE sessions SET updated_at = 1 WHERE id = :session RETURNING last_seq"
MOVE_HEAD = "UPDATE sessions SET last_seq = last_seq + 1 WHERE id = :session"
EVENT = (
    "INSERT INTO events (session_id, seq, at, task_id, step, item_id, type, data)"
    ' SELECT :session, last_seq, 1, :task, NULL, NULL, \'task.queued\', \'{"prompt": "Mend it.", "position": 0}\''
    " FROM sessions WHERE id = :session"
)
TASK = (
    "INSERT INTO tasks (id, session_id, user_id, place, prompt, model, effort, status, max_tokens_total,"
    " created_at) SELECT :task, :session, :user, last_seq, 'Mend it.', 'demo:', NULL, 'queued', NULL, 1"
    " FROM sessions WHERE id = :session"
)
TAKE_TURN = (
    "UPDATE users SET active = active + 1, turn = (SELECT max(turn) + 1 FROM users)"
    " WHERE id = :user AND active < coalesce(max_active_tasks, 4) RETURNING id"
)
NEW_EPOCH = (
    "UPDATE sessions SET lease_epoch = lease_epoch + 1 WHERE id = :session RETURNING lease_epoch"
)
PREPARE = (
    "UPDATE tasks SET status = 'preparing', lease_worker = 'before', lease_epoch = (SELECT lease_epoch"
    " FROM sessions WHERE id = :session), lease_expires_at = 9000000000000, started_at = 1"
    " WHERE id = :task AND status = 'queued' RETURNING id"
)
RUN = "UPDATE tasks SET status = 'running' WHERE id = :task AND status = 'preparing' RETURNING id"
ITEM = (
    "INSERT INTO items (id, session_id, task_id, step, place, kind, status, call_id, content)"
    " VALUES (:item, :session, :task, 1, 100, 'message', 'completed', NULL, NULL)"
)
OPEN_CALL = (
    "INSERT INTO model_calls (task_id, step, session_id, user_id, model, place, status, input_bound,"
    " output_cap, started_at) VALUES (:task, 1, :session, :user, 'demo:', 100, 'open', 10, 10, 1)"
)
SETTLE_CALL = (
    "UPDATE model_calls SET status = 'settled', input_tokens = 5, output_tokens = 5, ended_at = 1"
    " WHERE task_id = :task AND step = 1 AND status = 'open' RETURNING input_bound"
)
ASK = (
    "INSERT INTO approvals (id, session_id, task_id, item_id, user_id, name, arguments, arguments_hash,"
    " summary, risk, status, used, note, created_at, expires_at) VALUES (:item, :session, :task, :item,"
    " :user, 'shell', '{}', '', '', 'low', 'withdrawn', 0, '', 1, 2)"
)
RELEASE = "UPDATE users SET active = active - 1 WHERE id = :user AND active > 0 RETURNING id"
FINISH = (
    "UPDATE tasks SET status = 'finished', outcome = 'succeeded', lease_worker = NULL, lease_epoch = NULL,"
    " lease_expires_at = NULL, finished_at = 1 WHERE id = :task AND status = 'running' RETURNING id"
)


def before(*statements: str, **names: str) -> Unit[list[Rows]]:
    """A unit of the release before."""
    found = []
    for sql in statements:
        statement = text(sql)
        named = {name: names[name] for name in statement.compile().params}
        found.append((yield Statement(statement)(**named)))
    return found


async def submitted(world: World) -> tuple[Session, Task]:
    """A task that the release before has accepted."""
    names: dict[str, Any] = {"user": "usr_before", "session": "ses_before", "task": "tsk_before"}
    await world.store.write(before, USER, SESSION, HOLD, MOVE_HEAD, EVENT, TASK, **names)
    session = await world.store.read(sessions.get_session, names["user"], names["session"])
    task, _ = await world.store.read(tasks.get_task, names["user"], names["task"])
    return session, task


async def marked(world: World) -> None:
    """What every worker does twice a minute."""
    for session_id in await world.store.read(queue.unmarked, 10):
        await world.store.write(queue.mark, session_id, world.now)


async def test_what_the_release_before_accepts_is_worked_on_by_this_one(world: World) -> None:
    session, task = await submitted(world)
    await marked(world)
    [claim] = await world.claim()
    assert claim.task.id == task.id
    await world.step(claim.lease)
    await world.finish(claim.lease)
    assert (await world.task(task)).outcome == "succeeded"
    assert await world.types(session.id) == [
        "task.queued", "task.started", "step.started", "step.finished", "task.finished",
    ]  # fmt: skip


async def test_what_this_release_accepts_is_worked_on_by_the_one_before(world: World) -> None:
    user = await world.user()
    session = await world.session(user)
    task, follow_up = await world.submit(session), await world.submit(session)
    names = {"user": user.id, "session": session.id, "task": task.id, "item": world.id("itm")}
    steps = (TAKE_TURN, NEW_EPOCH, PREPARE, HOLD, RUN, ITEM, OPEN_CALL, SETTLE_CALL, ASK)
    found = await world.store.write(before, *steps, **names)
    assert all(rows for sql, rows in zip(steps, found, strict=True) if "RETURNING" in sql)
    assert await world.claim() == []
    await world.store.write(before, RELEASE, HOLD, NEW_EPOCH, FINISH, **names)
    assert (await world.task(task)).outcome == "succeeded"
    await marked(world)
    [claim] = await world.claim()
    assert claim.task.id == follow_up.id
    assert await world.value(schema.users.c.active, schema.users, user.id) == 1

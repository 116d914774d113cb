"""Tasks that were never started: until then they can be changed, put before others, and withdrawn."""

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import bindparam, func, update

from zene.domain.errors import Conflict
from zene.domain.events import Draft, Event, TaskUpdated
from zene.domain.tasks import Task
from zene.store import ending
from zene.store.base import Statement, Unit
from zene.store.log import held
from zene.store.queue import NEVER_STARTED, move
from zene.store.schema import tasks
from zene.store.tasks import get_task

_CHANGE = Statement(
    update(tasks)
    .where(tasks.c.id == bindparam("task"), NEVER_STARTED)
    .values(
        prompt=func.coalesce(bindparam("new_prompt"), tasks.c.prompt),
        model=func.coalesce(bindparam("new_model"), tasks.c.model),
        effort=func.coalesce(bindparam("new_effort"), tasks.c.effort),
        priority=func.coalesce(bindparam("new_priority"), tasks.c.priority),
        max_tokens_total=func.coalesce(bindparam("new_most"), tasks.c.max_tokens_total),
    )
    .returning(tasks.c.id)
)


class Change(Struct, frozen=True, kw_only=True):
    """What becomes of a task; None leaves it. `before` is the task of its session that it goes before."""

    prompt: str | None = None
    model: str | None = None
    effort: str | None = None
    priority: int | None = None
    max_tokens_total: int | None = None
    before: str | None = None


def change(
    user_id: str, task_id: str, to: Change, now: int
) -> Unit[tuple[Task, int | None, Sequence[Event]]]:
    """Change the user's task and say so; it, its place now, and what is to be published. Raises NotFound,
    and Conflict where it was started or has ended.
    """
    task, _ = yield from get_task(user_id, task_id)
    writer = yield from held(task.session_id, now)
    yield from _change(task_id, to)
    if to.before is not None:
        yield from move(task.session_id, task_id, to.before)
    task, position = yield from get_task(user_id, task_id)
    if to != Change():
        body = TaskUpdated(
            prompt=to.prompt,
            model=to.model,
            effort=to.effort,
            priority=to.priority,
            max_tokens_total=to.max_tokens_total,
            position=None if to.before is None else position,
        )
        writer.add(Draft(body=body, task_id=task_id))
    return task, position, (yield from writer.flush())


def withdraw(user_id: str, task_id: str, now: int) -> Unit[tuple[Task, Sequence[Event]]]:
    """End the user's task as cancelled before it begins; twice is harmless. Raises NotFound, and Conflict
    where it was started or has ended otherwise.
    """
    task, _ = yield from get_task(user_id, task_id)
    writer = yield from held(task.session_id, now)
    task, _ = yield from get_task(user_id, task_id)
    if task.started_at is not None or task.outcome != "cancelled":
        yield from _change(task_id, Change())
        yield from ending.finish(writer, task_id, "cancelled", now=now)
    events = yield from writer.flush()
    task, _ = yield from get_task(user_id, task_id)
    return task, events


def _change(task_id: str, to: Change) -> Unit[None]:
    changed = yield _CHANGE(
        task=task_id,
        new_prompt=to.prompt,
        new_model=to.model,
        new_effort=to.effort,
        new_priority=to.priority,
        new_most=to.max_tokens_total,
    )
    if not changed:
        raise Conflict("The task was started before, or has ended.", code="already_started")

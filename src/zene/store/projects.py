"""Projects. Deleting one leaves its sessions their workspaces; its files are removed by a job."""

from sqlalchemy import bindparam, delete, insert, select, update

from zene.domain.errors import NotFound
from zene.domain.projects import Project
from zene.store import jobs
from zene.store.base import Rows, Statement, Unit
from zene.store.schema import projects, sessions

_COLUMNS = tuple(projects.c[name] for name in Project.__struct_fields__)
_mine = (
    projects.c.id == bindparam("project"),
    projects.c.user_id == bindparam("user"),
    projects.c.deleted_at.is_(None),
)
_CREATE = Statement(insert(projects).returning(*_COLUMNS))
_GET = Statement(select(*_COLUMNS).where(*_mine))
_LIST = Statement(
    select(*_COLUMNS)
    .where(
        projects.c.user_id == bindparam("user"),
        projects.c.id < bindparam("before"),
        projects.c.deleted_at.is_(None),
    )
    .order_by(projects.c.id.desc())
    .limit(bindparam("limit"))
)
_RENAME = Statement(
    update(projects)
    .where(*_mine)
    .values(name=bindparam("new_name"), updated_at=bindparam("now"))
    .returning(*_COLUMNS)
)
_SET_READY = Statement(
    update(projects)
    .where(*_mine)
    .values(
        state="ready",
        files=bindparam("new_files"),
        bytes=bindparam("new_bytes"),
        updated_at=bindparam("now"),
    )
    .returning(*_COLUMNS)
)
_DELETE = Statement(
    update(projects).where(*_mine).values(deleted_at=bindparam("now")).returning(projects.c.id)
)
_some_sessions = (
    select(sessions.c.id)
    .where(sessions.c.project_id == bindparam("project"))
    .limit(bindparam("limit"))
)
_FORGET = Statement(
    update(sessions)
    .where(sessions.c.id.in_(_some_sessions))
    .values(project_id=None)
    .returning(sessions.c.id)
)
_PURGE = Statement(
    delete(projects).where(
        projects.c.id == bindparam("project"), projects.c.deleted_at.is_not(None)
    )
)
_LAST = "~"  # sorts after every id


def create_project(project_id: str, user_id: str, name: str, now: int) -> Unit[Project]:
    """Add an empty project."""
    rows = yield _CREATE(
        id=project_id,
        user_id=user_id,
        name=name,
        state="empty",
        files=0,
        bytes=0,
        created_at=now,
        updated_at=now,
        deleted_at=None,
    )
    return _one(rows)


def list_projects(
    user_id: str, cursor: str | None, limit: int
) -> Unit[tuple[list[Project], str | None]]:
    """The user's projects, newest first, and the cursor of the next page."""
    rows = yield _LIST(user=user_id, before=cursor or _LAST, limit=limit + 1)
    found = [Project(**dict(zip(Project.__struct_fields__, row, strict=True))) for row in rows]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def get_project(user_id: str, project_id: str) -> Unit[Project]:
    """One project of the user. Raises NotFound."""
    return _one((yield _GET(project=project_id, user=user_id)))


def rename_project(user_id: str, project_id: str, name: str, now: int) -> Unit[Project]:
    """Give it another name. Raises NotFound."""
    return _one((yield _RENAME(project=project_id, user=user_id, new_name=name, now=now)))


def set_ready(user_id: str, project_id: str, *, files: int, size: int, now: int) -> Unit[Project]:
    """An archive has been unpacked: so many files, so many bytes. Raises NotFound."""
    rows = yield _SET_READY(
        project=project_id, user=user_id, new_files=files, new_bytes=size, now=now
    )
    return _one(rows)


def delete_project(user_id: str, project_id: str, now: int, job_id: str) -> Unit[None]:
    """Hide it and enqueue the job that removes its files and then its row. Raises NotFound."""
    if not (yield _DELETE(project=project_id, user=user_id, now=now)):
        raise _unknown()
    yield from jobs.enqueue(job_id, "delete_project", {"project_id": project_id}, now)


def purge_project(project_id: str, *, limit: int) -> Unit[bool]:
    """Let at most `limit` rows go: those of sessions of a deleted project, which stand on their own from then
    on, and last the project's own; whether there are more.
    """
    if len((yield _FORGET(project=project_id, limit=limit))) >= limit:
        return True
    yield _PURGE(project=project_id)
    return False


def _one(rows: Rows) -> Project:
    if not rows:
        raise _unknown()
    return Project(**dict(zip(Project.__struct_fields__, rows[0], strict=True)))


def _unknown() -> NotFound:
    return NotFound("There is no such project.")

"""Every route of the interface as a method."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, Final, Literal, Self, TypedDict, Unpack
from urllib.parse import quote

from msgspec import Raw

from zene.client import following
from zene.client.connection import Connection
from zene.domain.approvals import ApprovalStatus, Decision, Scope
from zene.domain.events import Event
from zene.domain.files import Difference, Listing
from zene.domain.processes import Processes
from zene.domain.sessions import ApprovalPolicy
from zene.domain.tasks import OnBusy
from zene.domain.users import Role
from zene.gateway import shapes
from zene.gateway.shapes import Page, Tokens

_CHUNK_BYTES: Final = 256 << 10

Effort = Literal["none", "low", "medium", "high"]

_NULL: Final = Raw(b"null")


class TaskOptions(TypedDict, total=False):
    """What a task may be asked for with; what is not named is the session's, or the usual."""

    model: str | None
    effort: Effort | None
    max_tokens_total: int | None
    priority: int
    on_busy: OnBusy


class AsyncClient:
    """A user's view of one server. Errors come out as the ZeneErrors that the server names.

    `tokens` continue a sign-in; `refreshed` is told of new ones, to keep them. A request waits and tries
    again while the server is busy. Closing it twice is harmless.
    """

    def __init__(
        self,
        url: str,
        *,
        tokens: Tokens | None = None,
        refreshed: Callable[[Tokens], None] | None = None,
    ) -> None:
        self._connection = Connection(url, tokens=tokens, refreshed=refreshed)
        self._ask = self._connection.ask

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the sockets."""
        await self._connection.close()

    async def login(self, email: str, password: str) -> Tokens:
        """Sign in; every request from now on is this user's."""
        body = {"email": email, "password": password}
        tokens = await self._ask("POST", "/v1/auth/login", Tokens, body=body)
        self._connection.keep(tokens)
        return tokens

    async def logout(self) -> None:
        """End the sign-in on the server and forget it here."""
        await self._ask("POST", "/v1/auth/logout", NoneType)
        self._connection.keep(None)

    async def me(self) -> shapes.User:
        """Who is signed in."""
        return await self._ask("GET", "/v1/me", shapes.User)

    async def models(self) -> shapes.Models:
        """The models that may be chosen."""
        return await self._ask("GET", "/v1/models", shapes.Models)

    async def usage(self) -> shapes.UsageReport:
        """What this user has used."""
        return await self._ask("GET", "/v1/usage", shapes.UsageReport)

    async def create_user(
        self, email: str, password: str, role: Role = Role.MEMBER, **allowed: Any
    ) -> shapes.User:
        """Add a user with, where they are named, `quota` and `max_active_tasks`; for administrators."""
        body = {"email": email, "password": password, "role": role, **allowed}
        return await self._ask("POST", "/v1/admin/users", shapes.User, body=body, key=_new_key())

    async def users(self, **page: Any) -> Page[shapes.User]:
        """A page (`limit`, `cursor`) of all users; for administrators."""
        return await self._ask("GET", "/v1/admin/users", Page[shapes.User], query=page)

    async def workers(self) -> Processes:
        """The installation's workers and gateways; for administrators."""
        return await self._ask("GET", "/v1/admin/workers", Processes)

    async def change_user(self, user_id: str, **changes: Any) -> shapes.User:
        """Change `role`, `disabled`, `password`, `quota` or `max_active_tasks`, the last two with None lifted;
        for administrators.
        """
        body = {name: _NULL if value is None else value for name, value in changes.items()}
        return await self._ask("PATCH", f"/v1/admin/users/{_id(user_id)}", shapes.User, body=body)

    async def create_project(self, name: str) -> shapes.Project:
        """Make an empty project."""
        return await self._ask(
            "POST", "/v1/projects", shapes.Project, body={"name": name}, key=_new_key()
        )

    async def projects(self, **page: Any) -> Page[shapes.Project]:
        """A page of the projects, newest first."""
        return await self._ask("GET", "/v1/projects", Page[shapes.Project], query=page)

    async def project(self, project_id: str) -> shapes.Project:
        """One project."""
        return await self._ask("GET", f"/v1/projects/{_id(project_id)}", shapes.Project)

    async def rename_project(self, project_id: str, name: str) -> shapes.Project:
        """Rename a project."""
        path = f"/v1/projects/{_id(project_id)}"
        return await self._ask("PATCH", path, shapes.Project, body={"name": name})

    async def delete_project(self, project_id: str) -> None:
        """Delete a project; its sessions stay."""
        await self._ask("DELETE", f"/v1/projects/{_id(project_id)}", NoneType)

    async def upload(self, project_id: str, archive: Path) -> shapes.Unpacked:
        """Replace a project's files by those of a .tar.gz."""
        path = f"/v1/projects/{_id(project_id)}/archive"
        return await self._ask("PUT", path, shapes.Unpacked, body=lambda: _chunks(archive))

    async def create_session(
        self,
        *,
        project_id: str | None = None,
        title: str | None = None,
        model: str | None = None,
        effort: Effort | None = None,
        approval_policy: ApprovalPolicy | None = None,
    ) -> shapes.Session:
        """Begin a session on a project, or on an empty workspace."""
        body = {
            "project_id": project_id,
            "title": title,
            "model": model,
            "effort": effort,
            "approval_policy": approval_policy,
        }
        return await self._ask("POST", "/v1/sessions", shapes.Session, body=body, key=_new_key())

    async def sessions(self, **page: Any) -> Page[shapes.Session]:
        """A page (`limit`, `cursor`, `project_id`) of the sessions, newest first."""
        return await self._ask("GET", "/v1/sessions", Page[shapes.Session], query=page)

    async def session(self, session_id: str) -> shapes.Session:
        """One session."""
        return await self._ask("GET", f"/v1/sessions/{_id(session_id)}", shapes.Session)

    async def change_session(self, session_id: str, **changes: Any) -> shapes.Session:
        """Change `title`, `model`, `effort` or `approval_policy`."""
        path = f"/v1/sessions/{_id(session_id)}"
        return await self._ask("PATCH", path, shapes.Session, body=changes)

    async def delete_session(self, session_id: str) -> None:
        """Delete a session with all that belongs to it."""
        await self._ask("DELETE", f"/v1/sessions/{_id(session_id)}", NoneType)

    async def submit(
        self,
        session_id: str,
        prompt: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> shapes.Task:
        """Ask the agent for something; `follow` shows what it does."""
        path = f"/v1/sessions/{_id(session_id)}/tasks"
        body = {"prompt": prompt, **options}
        key = idempotency_key or _new_key()
        return await self._ask("POST", path, shapes.Task, body=body, key=key)

    async def tasks(self, session_id: str, **page: Any) -> Page[shapes.Task]:
        """A page of a session's tasks, oldest first."""
        path = f"/v1/sessions/{_id(session_id)}/tasks"
        return await self._ask("GET", path, Page[shapes.Task], query=page)

    async def task(self, task_id: str) -> shapes.Task:
        """One task."""
        return await self._ask("GET", f"/v1/tasks/{_id(task_id)}", shapes.Task)

    async def change_task(self, task_id: str, **changes: Any) -> shapes.Task:
        """Change `prompt`, `model`, `effort`, `priority` or `max_tokens_total` of a task that was never
        started, or have it go `before` another. Raises Conflict for any other task.
        """
        return await self._ask("PATCH", f"/v1/tasks/{_id(task_id)}", shapes.Task, body=changes)

    async def withdraw(self, task_id: str) -> shapes.Task:
        """End a task before it begins. Raises Conflict where it was started."""
        return await self._ask("DELETE", f"/v1/tasks/{_id(task_id)}", shapes.Task)

    async def steer(
        self, task_id: str, text: str, *, idempotency_key: str | None = None
    ) -> shapes.Steer:
        """Say something to a task that is worked on. Raises Conflict for any other."""
        key = idempotency_key or _new_key()
        path = f"/v1/tasks/{_id(task_id)}/steer"
        return await self._ask("POST", path, shapes.Steer, body={"text": text}, key=key)

    async def cancel(self, task_id: str) -> shapes.Task:
        """Cancel a task; harmless when it has ended."""
        return await self._ask("POST", f"/v1/tasks/{_id(task_id)}/cancel", shapes.Task)

    async def approvals(
        self, status: ApprovalStatus = "pending", **page: Any
    ) -> Page[shapes.Approval]:
        """A page of the approvals over all sessions."""
        query = {"status": status, **page}
        return await self._ask("GET", "/v1/approvals", Page[shapes.Approval], query=query)

    async def decide(
        self, approval_id: str, decision: Decision, *, scope: Scope = "once", note: str = ""
    ) -> shapes.Approval:
        """Allow or deny a call. Raises Conflict where it was decided before."""
        body = {"decision": decision, "scope": scope, "note": note}
        path = f"/v1/approvals/{_id(approval_id)}"
        return await self._ask("POST", path, shapes.Approval, body=body)

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 500, wait: float = 0
    ) -> shapes.Events:
        """A page of a session's events; an empty one is held back for up to `wait` (≤ 30) seconds."""
        query = {"after": after, "limit": limit, "wait": wait}
        path = f"/v1/sessions/{_id(session_id)}/events"
        return await self._ask("GET", path, shapes.Events, query=query)

    def follow(
        self,
        session_id: str,
        *,
        after: int | None = 0,
        patience_seconds: float = 120,
        away: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Event, None]:
        """A session's events as they happen, for ever: see `following.follow`. Leave it by `aclosing`."""
        return following.follow(
            self._connection, _id(session_id), after, patience_seconds=patience_seconds, away=away
        )

    async def files(self, session_id: str, path: str = "", **page: Any) -> Listing:
        """A page of a folder of the workspace."""
        query = {"path": path, **page}
        return await self._ask("GET", f"/v1/sessions/{_id(session_id)}/files", Listing, query=query)

    @asynccontextmanager
    async def opened_file(
        self, session_id: str, path: str
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """A file of the workspace, in pieces."""
        url = f"/v1/sessions/{_id(session_id)}/files/content"
        async with self._connection.opened("GET", url, query={"path": path}) as response:
            yield response.aiter_bytes()

    async def read_file(self, session_id: str, path: str) -> bytes:
        """A file of the workspace."""
        async with self.opened_file(session_id, path) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def write_file(self, session_id: str, path: str, content: bytes) -> None:
        """Replace or make a file of the workspace."""
        url = f"/v1/sessions/{_id(session_id)}/files/content"
        await self._ask("PUT", url, NoneType, query={"path": path}, body=content)

    async def diff(self, session_id: str) -> Difference:
        """How the workspace differs from where the session began."""
        return await self._ask("GET", f"/v1/sessions/{_id(session_id)}/diff", Difference)

    async def output(
        self, session_id: str, item_id: str, *, offset: int = 0, limit: int | None = None
    ) -> bytes:
        """All that a call printed, as far as it was kept."""
        path = f"/v1/sessions/{_id(session_id)}/items/{_id(item_id)}/output"
        query = {"offset": offset, "limit": limit}
        async with self._connection.opened("GET", path, query=query) as response:
            return await response.aread()


def _new_key() -> str:
    """So that a request whose answer got lost can be made again."""
    return uuid.uuid4().hex


def _id(text: str) -> str:
    """An id as one segment of a path, whatever somebody pasted."""
    return quote(text, safe="")


async def _chunks(file: Path) -> AsyncIterable[bytes]:
    with await asyncio.to_thread(file.open, "rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, _CHUNK_BYTES):
            yield chunk

"""The single owner of all workspaces on this host: makes them, opens them, compares and deletes them.

A session's workspace is a copy of its project's, which an upload prepared once. Nobody else opens one by
a path: sandboxes get folders of it, and everyone else `files`.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from zene.domain.errors import InvalidInput
from zene.sandbox.base import Limits, Provider
from zene.workspaces import front
from zene.workspaces.archives import Unpacked, Unpacker, lock_of
from zene.workspaces.attachments import Attachments
from zene.workspaces.diffs import Changes, Diff, Differ
from zene.workspaces.files import Files
from zene.workspaces.folders import Folders
from zene.workspaces.images import Images
from zene.workspaces.storage import (
    HOME,
    TEMPORARY,
    WORKSPACE,
    Attached,
    Storage,
    check_room,
    checked_name,
)
from zene.workspaces.threads import Threads
from zene.workspaces.touched import was_touched

GIBIBYTE = 1 << 30
PROJECTS, SESSIONS = "projects", "workspaces"  # where they are kept below the data folder
SHOWN = {  # what a sandbox shows of a session's workspace, and where
    WORKSPACE: "/workspace",
    HOME: "/home/zene",
    TEMPORARY: "/tmp",  # noqa: S108 - inside the sandbox
}
_LIMITS = Limits()
_REAP_AFTER_SECONDS = (
    3600.0  # what is younger may belong to somebody who is not in the caller's list yet
)


class Workspace:
    """A session's workspace while it is open. Releasing it twice is harmless; use nothing of it after."""

    def __init__(
        self, attached: Attached, threads: Threads, attachments: Attachments, place: Path
    ) -> None:
        self.root = (
            attached.root
        )  # a descriptor of /workspace, for whoever can be trusted with names
        self.files = Files(attached.root, threads)
        self.folders = tuple(attached.folder(name, target) for name, target in SHOWN.items())
        self._attachments = attachments
        self._place: Path | None = place

    async def release(self) -> None:
        """Give it back, after the last call of `files` and after the sandbox that shows `folders` is closed."""
        place, self._place = self._place, None
        if place is not None:
            await self._attachments.give_back(place)


class Workspaces:
    """See the module. With `disk_bytes` None, and where the machine cannot mount images, workspaces are plain
    folders without a cap: `reason_for_folders` says why, and is None where the caps hold.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        sandboxes: Provider,
        disk_bytes: int | None = 10 * GIBIBYTE,
        inodes: int = 262_144,
        limits: Limits = _LIMITS,
    ) -> None:
        self._data_dir = data_dir
        self._sandboxes = sandboxes
        self._disk_bytes = disk_bytes
        self._inodes = inodes
        self._limits = limits
        self._keepers = Threads("workspaces", 4)
        self._is_started = False
        self.reason_for_folders: str | None = None

    async def start(self) -> None:
        """Make ready, once, after the sandboxes' provider was started. Raises SetupError with the cure."""
        for name in (PROJECTS, SESSIONS, "templates"):
            (self._data_dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._storage = self._choose_storage()
        self._users = Threads("files", 4, uid=self._storage.owner)
        self._attachments = Attachments(self._storage, self._keepers)
        self._differ = Differ(
            attachments=self._attachments,
            sandboxes=self._sandboxes,
            limits=self._limits,
            turns=WeakValueDictionary(),
        )
        self._is_started = True
        await self._storage.prepare()

    def _choose_storage(self) -> Storage:
        capabilities = self._sandboxes.capabilities
        if self._disk_bytes is None:
            self.reason_for_folders = "no cap on disk is set"
        elif "disk" not in capabilities.enforced:
            self.reason_for_folders = capabilities.missing.get("disk", "it is not said why")
        else:
            return Images(self._data_dir, disk_bytes=self._disk_bytes, inodes=self._inodes)
        return Folders(self._data_dir)

    async def create(self, session_id: str, project_id: str | None = None) -> None:
        """Make the session's workspace from its project's, or an empty one. Twice is harmless.

        Raises Unavailable when the disk is nearly full.
        """
        target = self._session(session_id)
        if target.exists():
            return
        check_room(self._data_dir)
        source = None if project_id is None else self._project(project_id)
        await self._keepers.run(self._copy, source, target)

    async def begins_with(
        self, session_id: str, project_id: str | None = None
    ) -> front.Front | None:
        """What a workspace that is not made yet will begin with; None where it is made, or it is not known."""
        if self._session(session_id).exists():
            return None
        if project_id is None:
            return {}
        return await self._keepers.run(front.kept, self._project(project_id))

    async def acquire(self, session_id: str) -> Workspace:
        """Open a session's workspace, shared with whoever has it open on this host; to be released.

        Raises NotFound, Unavailable when the disk is nearly full, Conflict while another process has it.
        """
        check_room(self._data_dir)
        return await self._open(self._session(session_id))

    @asynccontextmanager
    async def open(self, session_id: str) -> AsyncGenerator[Workspace, None]:
        """As `acquire` and `release`, for looking at files: a full disk does not prevent it."""
        workspace = await self._open(self._session(session_id))
        try:
            yield workspace
        finally:
            await workspace.release()

    def holds(self, session_id: str) -> bool:
        """Whether this process has the session's workspace open; False for what is no session's id."""
        try:
            return self._attachments.is_attached(self._session(session_id))
        except InvalidInput:
            return False

    async def replace_project(self, project_id: str, archive: AsyncIterable[bytes]) -> Unpacked:
        """Make a project's files from a .tar.gz, for the sessions that are created from now on.

        A bad, broken off or second one leaves what was there. Raises InvalidInput (415, 422), TooLarge,
        Conflict, Unavailable, SandboxUnavailable, and whatever reading `archive` raises.
        """
        project = self._project(project_id)
        check_room(self._data_dir)
        unpacker = Unpacker(
            storage=self._storage,
            attachments=self._attachments,
            threads=self._keepers,
            users=self._users,
            sandboxes=self._sandboxes,
            limits=self._limits,
            most_bytes=self._disk_bytes or 10 * GIBIBYTE,
            most_entries=self._inodes,
        )
        return await unpacker.replace(project, archive)

    async def diff(self, session_id: str) -> Diff:
        """What the session changed. Raises NotFound, SandboxUnavailable, Unavailable after 10 s."""
        return await self._differ.diff(self._session(session_id), f"diff-{session_id}")

    async def changed(self, session_id: str) -> Changes:
        """As `diff`, without its patch and for less."""
        return await self._differ.changed(self._session(session_id), f"diff-{session_id}")

    async def was_touched(self, session_id: str, since_ms: int) -> bool:
        """Whether a file may have changed since then (ms since 1970); mostly a fraction of a ms. Raises as `diff`."""
        async with self.open(session_id) as workspace:
            return await self._users.run(was_touched, workspace.root, since_ms)

    async def delete(self, session_id: str) -> None:
        """Delete a session's workspace, after its sandbox is closed; harmless when there is none."""
        await self._keepers.run(self._storage.remove, self._session(session_id))

    async def delete_project(self, project_id: str) -> None:
        """Delete what new sessions of the project would start from; those there are keep their files."""
        await self._keepers.run(self._delete_project, self._project(project_id))

    async def reap(
        self,
        known_sessions: Collection[str],
        known_projects: Collection[str],
        *,
        now: float | None = None,
    ) -> int:
        """Delete what nobody names and nobody on this host has open, and what crashes left; answers how many.

        What was made within the last hour stays: its name may be younger than the caller's lists.
        """
        keep = {self._session(name) for name in known_sessions}
        for project in map(self._project, known_projects):
            keep |= {project, lock_of(project), front.place_of(project)}
        made_before = (time.time() if now is None else now) - _REAP_AFTER_SECONDS
        gone = 0
        for place in await self._keepers.run(self._all_old, made_before):
            if place not in keep and not self._attachments.is_open(place):
                gone += await self._keepers.run(self._remove_closed, place)
        return gone

    async def close(self) -> None:
        """Detach everything; to be called when no sandbox and no reader is left. Twice is harmless, and so is
        before the start.
        """
        if self._is_started:
            await self._attachments.close()
            self._users.close()
        self._keepers.close()

    async def _open(self, place: Path) -> Workspace:
        attached = await self._attachments.take(place)
        return Workspace(attached, self._users, self._attachments, place)

    def _copy(self, source: Path | None, target: Path) -> None:
        """A project without an image is an empty one."""
        self._storage.copy(source if source and source.exists() else None, target)

    def _delete_project(self, project: Path) -> None:
        front.forget(project)
        self._storage.remove(project)

    def _remove_closed(self, place: Path) -> bool:
        """Whether it is removed: not where another process has it open."""
        if self._storage.is_open(place):
            return False
        self._storage.remove(place)
        return True

    def _all_old(self, made_before: float) -> list[Path]:
        return [
            place
            for kind in (PROJECTS, SESSIONS)
            for place in (self._data_dir / kind).iterdir()
            if place.lstat().st_ctime < made_before
        ]

    def _session(self, session_id: str) -> Path:
        return self._storage.place(SESSIONS, checked_name(session_id))

    def _project(self, project_id: str) -> Path:
        return self._storage.place(PROJECTS, checked_name(project_id))

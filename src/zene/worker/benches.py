"""A session's workspace and sandbox, as its tasks use them: one of each, kept for a while between tasks.

The workspace is opened and the sandbox started when first needed; a task warms its sandbox up while
the model is thinking. An idle bench is dropped after `idle_seconds`; the workspace is durable, the
sandbox is not.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from zene import telemetry
from zene.agent.prompts import RULES_FILES
from zene.domain.errors import NotFound, SandboxGone
from zene.domain.events import Body, SandboxState
from zene.domain.sessions import Session
from zene.sandbox.base import (
    Command,
    Exit,
    Folder,
    Limits,
    Outcome,
    Output,
    Provider,
    Sandbox,
    Spec,
)
from zene.tools.base import Entry
from zene.workspaces.workspaces import SHOWN, Workspace, Workspaces

if TYPE_CHECKING:
    from zene.workspaces.front import Front

EPOCHS_A_TASK = 2  # a claim begins one, the lease's end another

log = telemetry.logger(__name__)


class Bench:
    """Implements `tools.base.Workbench` for one session. Closing it twice is harmless."""

    def __init__(self, session: Session, host: "Host") -> None:
        self.users = 0
        self.epoch = 0  # of the last lease under which it was used
        self.idle_since = time.monotonic()
        self.news: list[Body] = []  # what became of it, until a runner has told it
        self._session = session
        self._host = host
        self._front: Front | None = None
        self._workspace: Workspace | None = None
        self._sandbox: Sandbox | None = None
        self._opening = asyncio.Lock()  # of the workspace
        self._starting = asyncio.Lock()  # of the sandbox; taken first where both are

    @property
    def is_ready(self) -> bool:
        """Whether its sandbox is there."""
        return self._sandbox is not None

    async def look(self) -> None:
        """As a task begins: what its first look at the project's rules will find, without opening anything."""
        if self._workspace is None:
            session = self._session
            self._front = await self._host.workspaces.begins_with(session.id, session.project_id)

    async def open(self) -> None:
        """Open the workspace, if it is not, after killing what somebody else may have left running on it."""
        await self._open()

    async def warm_up(self) -> None:
        """Open the workspace and start the sandbox, if they are not there."""
        await self._ready()

    async def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        """Run it in the sandbox; one that has ended is started anew for the next command."""
        sandbox = await self._ready()
        try:
            async with aclosing(sandbox.run(command)) as outputs:
                async for output in outputs:
                    if isinstance(output, Exit):
                        self._note(command, output)
                    yield output
        except SandboxGone:
            await self._forget(sandbox, "ended")
            raise

    async def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file of the workspace."""
        if self._workspace is None and self._front is not None and path in RULES_FILES:
            if path not in self._front:
                raise NotFound(f"{path} does not exist in the workspace")
            return self._front[path][:limit]
        return await (await self._open()).files.read(path, limit)

    async def write(self, path: str, content: bytes) -> None:
        """Write a file of the workspace whole."""
        await (await self._open()).files.write(path, content)

    async def list(self, path: str, limit: int) -> Sequence[Entry]:
        """The first names in a folder of the workspace."""
        page = await (await self._open()).files.list(path, limit=limit)
        return [Entry(name=e.name, kind=e.kind, size=e.size) for e in page.entries]

    async def outcome(self, call_id: str) -> Outcome | None:
        """What the running sandbox, if any, remembers of a call."""
        if self._sandbox is None:
            return None
        try:
            return await self._sandbox.outcome(call_id)
        except SandboxGone:
            return None

    async def kill(self) -> None:
        """End the sandbox and everything in it; the workspace stays open."""
        if self._sandbox is not None:
            await self._forget(self._sandbox, "killed")

    async def close(self) -> None:
        """End the sandbox and let go of the workspace."""
        async with self._starting, self._opening:
            sandbox, self._sandbox = self._sandbox, None
            if sandbox is not None:
                await sandbox.close()
            workspace, self._workspace = self._workspace, None
            if workspace is not None:
                await workspace.release()

    def _note(self, command: Command, end: Exit) -> None:
        if end.out_of_memory:
            self.news.append(SandboxState(state="out_of_memory"))
        log.info(
            "command.ended",
            session=self._session.id,
            call=command.call_id,
            code=end.code,
            ms=end.duration_ms,
        )

    async def _open(self) -> Workspace:
        """The workspace; files can be read while the sandbox still starts."""
        async with self._opening:
            if self._workspace is None:
                workspaces, session = self._host.workspaces, self._session
                await self._host.sandboxes.kill(session.id)
                await workspaces.create(session.id, session.project_id)
                self._workspace = await workspaces.acquire(session.id)
            return self._workspace

    async def _ready(self) -> Sandbox:
        async with self._starting:
            if self._sandbox is None:
                workspace = await self._open()
                spec = self._host.spec(self._session.id, workspace.folders)
                began = time.monotonic()
                self._sandbox = await self._host.sandboxes.open(spec)
                took = round((time.monotonic() - began) * 1000)
                self.news.append(SandboxState(state="started", ms=took))
            return self._sandbox

    async def _forget(self, sandbox: Sandbox, reason: Literal["ended", "killed"]) -> None:
        if self._sandbox is sandbox:
            self._sandbox = None
            self.news.append(SandboxState(state="gone", reason=reason))
        await sandbox.close()


class Host(Struct, frozen=True, kw_only=True):
    """What all benches of a worker share."""

    workspaces: Workspaces
    sandboxes: Provider
    limits: Limits = Limits()
    read_only_paths: tuple[Path, ...] = ()
    idle_seconds: float = 30.0

    def spec(self, label: str, folders: tuple[Folder, ...]) -> Spec:
        """The sandbox of a session."""
        return Spec(
            label=label,
            folders=folders,
            limits=self.limits,
            read_only_paths=self.read_only_paths,
        )


class Benches:
    """All benches of this worker."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._benches: dict[str, Bench] = {}

    def expect(self) -> None:
        """Have a sandbox ready for the next session that needs one."""
        folders = tuple(Folder(target=t, mount=None, path="") for t in SHOWN.values())
        self._host.sandboxes.expect(self._host.spec("next", folders))

    @asynccontextmanager
    async def use(self, session: Session, epoch: int) -> AsyncGenerator[Bench, None]:
        """The session's bench, for one task: a new one where it is not certain that nobody else was at the
        workspace since the last task here.
        """
        bench = self._benches.get(session.id)
        if bench is not None and (bench.users or bench.epoch + EPOCHS_A_TASK != epoch):
            await self.close_one(session.id)
            bench = None
        if bench is None:
            bench = self._benches[session.id] = Bench(session, self._host)
        bench.users += 1
        bench.epoch = epoch
        try:
            await bench.look()
            yield bench
        finally:
            bench.users -= 1
            bench.idle_since = time.monotonic()

    async def drop(self, session_id: str) -> None:
        """Close a session's bench now, whoever uses it; kill what else runs under its label."""
        await self.close_one(session_id)
        await self._host.sandboxes.kill(session_id)

    async def close_one(self, session_id: str) -> None:
        """Close a session's bench now, whoever uses it. What another worker has is left alone."""
        bench = self._benches.pop(session_id, None)
        if bench is not None:
            await bench.close()

    async def reap(self) -> None:
        """Remove the sandboxes of workers that have ended."""
        await self._host.sandboxes.reap()

    async def drop_idle(self) -> None:
        """Close the benches that no task has used for a while."""
        limit = time.monotonic() - self._host.idle_seconds
        for session_id, bench in list(self._benches.items()):
            if bench.users == 0 and bench.idle_since < limit:
                del self._benches[session_id]
                await bench.close()

    async def close(self) -> None:
        """Close them all."""
        while self._benches:
            _, bench = self._benches.popitem()
            await bench.close()

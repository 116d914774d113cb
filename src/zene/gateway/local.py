"""Files of this host: the workspaces and kept outputs of the same process."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from zene.domain.errors import NotFound
from zene.domain.events import ChangedFile
from zene.domain.sessions import Session
from zene.gateway.files import Difference, Entry, Listing, Upload
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspaces


class LocalFiles:
    """Implements `gateway.files.Files` without asking another process."""

    def __init__(self, workspaces: Workspaces, outputs: Outputs) -> None:
        self._workspaces = workspaces
        self._outputs = outputs

    async def replace_project(self, project_id: str, archive: AsyncIterator[bytes]) -> Upload:
        """Unpack it in a sandbox of its own."""
        unpacked = await self._workspaces.replace_project(project_id, archive)
        return Upload(files=unpacked.files, bytes=unpacked.bytes, dropped=unpacked.dropped)

    async def list(self, session: Session, path: str, *, cursor: str | None, limit: int) -> Listing:
        """A page of a folder."""
        await self._made(session)
        async with self._workspaces.open(session.id) as workspace:
            page = await workspace.files.list(path, cursor=cursor, limit=limit)
        entries = tuple(
            Entry(name=e.name, kind=e.kind, size=e.size, modified=e.modified) for e in page.entries
        )
        return Listing(entries=entries, next_cursor=page.next_cursor)

    async def stream(self, session: Session, path: str) -> AsyncGenerator[bytes, None]:
        """A file from beginning to end."""
        await self._made(session)
        async with (
            self._workspaces.open(session.id) as workspace,
            aclosing(workspace.files.stream(path)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def write(
        self, session: Session, path: str, content: AsyncIterator[bytes], *, limit: int
    ) -> None:
        """Replace or make a file."""
        await self._made(session)
        async with self._workspaces.open(session.id) as workspace:
            await workspace.files.write(path, content, limit=limit)

    async def diff(self, session: Session) -> Difference:
        """All changes since the session began."""
        await self._made(session)
        found = await self._workspaces.diff(session.id)
        files = tuple(
            ChangedFile(path=f.path, added=f.added, removed=f.removed) for f in found.changes.files
        )
        return Difference(patch=found.patch, files=files)

    async def output(
        self, session_id: str, item_id: str, *, offset: int, limit: int
    ) -> bytes | None:
        """What was kept of a call's output; None where it was short enough to be kept with the item."""
        try:
            content, _ = await self._outputs.read(session_id, item_id, offset, limit)
        except NotFound:
            return None
        return content

    async def _made(self, session: Session) -> None:
        await self._workspaces.create(session.id, session.project_id)

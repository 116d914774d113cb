"""What the gateway needs of workspaces, so that a worker on another host can stand behind it later."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from msgspec import Struct

from zene.domain.events import ChangedFile
from zene.domain.sessions import Session


class Upload(Struct, frozen=True, kw_only=True):
    """What an archive was unpacked to; `dropped` names what was left out of its `.git`."""

    files: int
    bytes: int
    dropped: tuple[str, ...] = ()


class Entry(Struct, frozen=True, kw_only=True):
    """A thing in a folder; `kind` is file, folder, link, pipe, socket or device, `modified` seconds since 1970."""

    name: str
    kind: str
    size: int
    modified: float


class Listing(Struct, frozen=True, kw_only=True):
    """Some entries of a folder; `next_cursor` asks for those after them."""

    entries: tuple[Entry, ...]
    next_cursor: str | None


class Difference(Struct, frozen=True, kw_only=True):
    """How the workspace differs from where it began, as a patch; large files are only named."""

    patch: str
    files: tuple[ChangedFile, ...]


class Files(Protocol):
    """Files of projects and sessions. The caller has checked whose they are; a session's workspace is
    made when first asked for. All raise InvalidInput, NotFound, TooLarge, Conflict and Unavailable.
    """

    async def replace_project(self, project_id: str, archive: AsyncIterator[bytes]) -> Upload:
        """Unpack a .tar.gz as the project's files, whole or not at all."""
        ...

    async def list(self, session: Session, path: str, *, cursor: str | None, limit: int) -> Listing:
        """A page of a folder's entries; "" and "." are the workspace itself."""
        ...

    def stream(self, session: Session, path: str) -> AsyncGenerator[bytes, None]:
        """A file from beginning to end. Raises with its first chunk, if at all; an empty file has none."""
        ...

    async def write(
        self, session: Session, path: str, content: AsyncIterator[bytes], *, limit: int
    ) -> None:
        """Replace or make a file, all of it or nothing."""
        ...

    async def diff(self, session: Session) -> Difference:
        """All changes since the session began, within ten seconds."""
        ...

    async def output(
        self, session_id: str, item_id: str, *, offset: int, limit: int
    ) -> bytes | None:
        """Bytes of what a call wrote; None where it was so short that all of it is in the item."""
        ...

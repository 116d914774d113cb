"""What is asked of a worker about files, and what it answers. The bytes of a file travel beside these."""

from msgspec import Struct

from zene.domain.events import ChangedFile


class Upload(Struct, frozen=True, kw_only=True):
    """What an archive was unpacked to; `dropped` names what was left out of its `.git`."""

    files: int
    bytes: int
    dropped: tuple[str, ...] = ()


class Entry(Struct, frozen=True, kw_only=True):
    """A thing in a folder; `kind` is file, folder, link, pipe, socket or device."""

    name: str
    kind: str
    size: int
    modified_at: str


class Listing(Struct, frozen=True, kw_only=True):
    """Some entries of a folder; `next_cursor` asks for those after them."""

    items: tuple[Entry, ...]
    next_cursor: str | None


class Difference(Struct, frozen=True, kw_only=True):
    """How the workspace differs from where it began, as a patch; large files are only named."""

    patch: str
    files: tuple[ChangedFile, ...]


class ReplaceProject(Struct, frozen=True, kw_only=True, tag=True):
    """The archive follows; answered by an Upload."""

    project_id: str


class ListFolder(Struct, frozen=True, kw_only=True, tag=True):
    """Answered by a Listing."""

    session_id: str
    project_id: str | None
    path: str
    cursor: str | None
    limit: int


class ReadFile(Struct, frozen=True, kw_only=True, tag=True):
    """Answered by the file's bytes."""

    session_id: str
    project_id: str | None
    path: str


class WriteFile(Struct, frozen=True, kw_only=True, tag=True):
    """The content follows, at most `limit` bytes; answered by nothing."""

    session_id: str
    project_id: str | None
    path: str
    limit: int


class ShowDiff(Struct, frozen=True, kw_only=True, tag=True):
    """Answered by a Difference."""

    session_id: str
    project_id: str | None


class ReadOutput(Struct, frozen=True, kw_only=True, tag=True):
    """Answered by the bytes."""

    session_id: str
    item_id: str
    offset: int
    limit: int


FileRequest = ReplaceProject | ListFolder | ReadFile | WriteFile | ShowDiff | ReadOutput

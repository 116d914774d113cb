"""Reads and writes a workspace's files from the host, as their owner and never outside of the workspace.

Each operation is one visit to a thread. What an agent does to the tree meanwhile can make it fail, but
not reach another file, hang, or show half a file to a reader.
"""

import heapq
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from zene.domain.errors import InvalidInput, NotFound, TooLarge
from zene.workspaces import paths, safe
from zene.workspaces.faults import explained
from zene.workspaces.threads import Threads
from zene.workspaces.writing import Draft

CHUNK = 1 << 18
MAX_PAGE = 10_000


class Entry(Struct, frozen=True, kw_only=True):
    """A thing in a folder; `kind` is file, folder, link, pipe, socket or device, `modified` seconds since 1970.

    A name that is not valid Unicode is shown with escapes.
    """

    name: str
    kind: str
    size: int
    modified: float


class Page(Struct, frozen=True, kw_only=True):
    """Some entries of a folder in the order of their names' bytes; `next_cursor` asks for those after them."""

    entries: tuple[Entry, ...]
    next_cursor: str | None


class Files:
    """A workspace's files. Paths are relative to it, or absolute below /workspace; "" is the workspace.

    Every method raises InvalidInput (a path that leads out, a pipe, …), NotFound and Unavailable.
    """

    def __init__(self, root: int, threads: Threads) -> None:
        self._root = root
        self._threads = threads

    async def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a regular file; fewer where it is shorter."""
        return await self._threads.run(_read, self._root, paths.inside(path), limit)

    async def stat(self, path: str) -> Entry:
        """What is at the end of the path, links followed."""
        return await self._threads.run(_stat, self._root, paths.inside(path))

    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """A regular file from beginning to end, as it is while it is read."""
        file = _OpenFile()
        try:
            await self._threads.run(file.open, self._root, paths.inside(path))
            while chunk := await self._threads.run(file.read):
                yield chunk
        finally:
            await self._threads.run(file.close)

    async def write(
        self,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        must_be_new: bool = False,
        limit: int | None = None,
    ) -> None:
        """Replace the file's content, or make the file and the folders above it: all of it, or nothing.

        An existing file keeps its mode. Raises TooLarge beyond `limit` bytes or where the workspace is
        full, Conflict where it must be new and is not, and InvalidInput where a link or a folder has the
        name, or git keeps its own there. Of several writers at once one is last.
        """
        relative = paths.for_writing(path)
        draft = Draft(self._root, relative, must_be_new=must_be_new)
        if isinstance(content, bytes):
            _check_size(len(content), limit, relative)
            await self._threads.run(_write, draft, content)
        else:
            await self._write_stream(draft, relative, content, limit)

    async def list(self, path: str = "", *, cursor: str | None = None, limit: int = 1000) -> Page:
        """A page of a folder's entries, links shown as links."""
        after = _decoded(cursor) if cursor else b""
        limit = max(1, min(limit, MAX_PAGE))
        return await self._threads.run(_list, self._root, paths.inside(path), after, limit)

    async def _write_stream(
        self, draft: Draft, path: str, content: AsyncIterable[bytes], limit: int | None
    ) -> None:
        size = 0
        try:
            await self._threads.run(draft.begin)
            async for chunk in content:
                size += len(chunk)
                _check_size(size, limit, path)
                await self._threads.run(draft.append, chunk)
            await self._threads.run(draft.commit)
        finally:
            await self._threads.run(draft.abandon)


def _read(root: int, path: str, limit: int) -> bytes:
    with explained(path), _opened(root, path) as fd:
        wanted = min(limit, os.fstat(fd).st_size + 1)
        chunks: list[bytes] = []
        while wanted > 0 and (chunk := os.read(fd, wanted)):
            chunks.append(chunk)
            wanted -= len(chunk)
        return b"".join(chunks)


def _stat(root: int, path: str) -> Entry:
    with explained(path):
        fd = safe.open_beneath(root, path, os.O_PATH)
        try:
            return _entry(path.rpartition("/")[2], os.fstat(fd))
        finally:
            os.close(fd)


def _write(draft: Draft, content: bytes) -> None:
    try:
        draft.begin()
        draft.append(content)
        draft.commit()
    finally:
        draft.abandon()


def _list(root: int, path: str, after: bytes, limit: int) -> Page:
    with explained(path):
        fd = safe.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as found:
                raw = (os.fsencode(entry.name) for entry in found)
                names = heapq.nsmallest(limit + 1, (name for name in raw if name > after))
            entries = [_entry_in(fd, name) for name in names[:limit]]
        finally:
            os.close(fd)
    more = _encoded(names[limit - 1]) if len(names) > limit else None
    return Page(entries=tuple(entry for entry in entries if entry), next_cursor=more)


def _entry_in(folder: int, name: bytes) -> Entry | None:
    """None where it has gone since the folder was read."""
    try:
        return _entry(
            name.decode(errors="backslashreplace"),
            os.stat(name, dir_fd=folder, follow_symlinks=False),
        )
    except FileNotFoundError:
        return None


def _entry(name: str, found: os.stat_result) -> Entry:
    return Entry(
        name=name,
        kind=safe.kind_of(found.st_mode),
        size=found.st_size,
        modified=found.st_mtime,
    )


def _check_size(size: int, limit: int | None, path: str) -> None:
    if limit is not None and size > limit:
        raise TooLarge(f"{path!a} may have at most {limit} bytes")


def _encoded(name: bytes) -> str:
    return urlsafe_b64encode(name).decode()


def _decoded(cursor: str) -> bytes:
    try:
        return urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        raise InvalidInput("the cursor is none that was given out", code="bad_cursor") from None


@contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    fd = safe.open_file(root, path)
    try:
        yield fd
    finally:
        os.close(fd)


class _OpenFile:
    """A file that stays open between visits to a thread. Closing it twice, or unopened, is harmless."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._path = ""

    def open(self, root: int, path: str) -> None:
        with explained(path):
            self._fd, self._path = safe.open_file(root, path), path

    def read(self) -> bytes:
        if self._fd is None:
            raise NotFound(f"{self._path!a} is closed")
        with explained(self._path):
            return os.read(self._fd, CHUNK)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

"""Files of projects and sessions: asked of a worker over the bus, the one that holds the workspace first.

A gateway never opens a workspace: it may be on another machine.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from zene.bus.base import ASK_SECONDS, IDLE_SECONDS, Transfer, Transfers
from zene.domain.errors import NotFound, TooMany, Unavailable
from zene.domain.files import (
    Difference,
    FileRequest,
    ListFolder,
    Listing,
    ReadFile,
    ReadOutput,
    ReplaceProject,
    ShowDiff,
    Upload,
    WriteFile,
)
from zene.domain.sessions import Session

OF_A_USER = 8  # at once: more wait, so that one who reads slowly takes nobody else's place
UNPACK_SECONDS = 660.0  # after its last byte an archive may take as long as a sandbox has for it
DIFF_SECONDS = 30.0  # more than a diff may take
_MOST_ANSWER_BYTES: Final = 32 << 20

T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode


class Files:
    """The caller has checked whose they are; a session's workspace is made when first asked for. All raise
    InvalidInput, NotFound, TooLarge, Conflict, TooMany and Unavailable, this where no worker is there, too.
    """

    def __init__(self, bus: Transfers) -> None:
        self._bus = bus
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def replace_project(
        self, user_id: str, project_id: str, archive: AsyncIterator[bytes]
    ) -> Upload:
        """Unpack a .tar.gz as the project's files, whole or not at all."""
        request = ReplaceProject(project_id=project_id)
        async with self._asked(request, project_id, user_id) as transfer:
            await _send(transfer, archive)
            return await _answer(transfer, Upload, UNPACK_SECONDS)

    async def list(self, session: Session, path: str, *, cursor: str | None, limit: int) -> Listing:
        """A page of a folder's entries; "" and "." are the workspace itself."""
        request = ListFolder(
            session_id=session.id,
            project_id=session.project_id,
            path=path,
            cursor=cursor,
            limit=limit,
        )
        async with self._asked(request, session.id, session.user_id) as transfer:
            return await _answer(transfer, Listing)

    async def stream(self, session: Session, path: str) -> AsyncGenerator[bytes, None]:
        """A file from beginning to end. Raises with its first chunk, if at all; an empty file has none."""
        request = ReadFile(session_id=session.id, project_id=session.project_id, path=path)
        async with self._asked(request, session.id, session.user_id) as transfer:
            while chunk := await transfer.receive():
                yield chunk

    async def write(
        self, session: Session, path: str, content: AsyncIterator[bytes], *, limit: int
    ) -> None:
        """Replace or make a file, all of it or nothing."""
        request = WriteFile(
            session_id=session.id, project_id=session.project_id, path=path, limit=limit
        )
        async with self._asked(request, session.id, session.user_id) as transfer:
            await _send(transfer, content)
            await _whole(transfer)

    async def diff(self, session: Session) -> Difference:
        """All changes since the session began, within ten seconds."""
        request = ShowDiff(session_id=session.id, project_id=session.project_id)
        async with self._asked(request, session.id, session.user_id) as transfer:
            return await _answer(transfer, Difference, DIFF_SECONDS)

    async def output(
        self, session: Session, item_id: str, *, offset: int, limit: int
    ) -> bytes | None:
        """Bytes of what a call wrote; None where it was so short that all of it is in the item."""
        request = ReadOutput(session_id=session.id, item_id=item_id, offset=offset, limit=limit)
        try:
            async with self._asked(request, session.id, session.user_id) as transfer:
                return await _whole(transfer)
        except NotFound:
            return None

    @asynccontextmanager
    async def _asked(
        self, request: FileRequest, about: str, user_id: str
    ) -> AsyncGenerator[Transfer, None]:
        turns = self._turns.get(user_id)
        if turns is None:
            turns = self._turns[user_id] = asyncio.Semaphore(OF_A_USER)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await turns.acquire()
        except TimeoutError:
            raise TooMany(
                f"{OF_A_USER} of your files are on their way already.", retry_after=1
            ) from None
        try:
            async with self._bus.ask(_encode(request), about=about) as transfer:
                yield transfer
        finally:
            turns.release()


async def _send(transfer: Transfer, content: AsyncIterator[bytes]) -> None:
    """All of it. Without its end nothing of it is kept, whatever `content` raises."""
    async for chunk in content:
        await transfer.send(chunk)
    transfer.end()


async def _answer(transfer: Transfer, shape: type[T], seconds: float = IDLE_SECONDS) -> T:
    try:
        return msgspec.msgpack.decode(await _whole(transfer, seconds), type=shape)
    except msgspec.DecodeError as err:
        raise Unavailable(f"A worker's answer was not understood: {err}.", retry_after=2) from err


async def _whole(transfer: Transfer, seconds: float = IDLE_SECONDS) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while (piece := await transfer.receive(seconds)) is not None:
        size += len(piece)
        if size > _MOST_ANSWER_BYTES:
            raise Unavailable("A worker's answer is longer than any may be.")
        pieces.append(piece)
    return b"".join(pieces)

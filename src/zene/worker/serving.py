"""Files for gateways: what they ask over the bus is read, written and compared here, where the workspaces are."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import msgspec

from zene import telemetry
from zene.bus.base import Asked, Bus, Transfer
from zene.domain.errors import Unavailable, ZeneError
from zene.domain.events import ChangedFile
from zene.domain.files import (
    Difference,
    Entry,
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
from zene.domain.times import rfc3339
from zene.workspaces import files as workspace_files
from zene.workspaces.outputs import Outputs
from zene.workspaces.workspaces import Workspace, Workspaces

AT_ONCE: Final = 64  # more wait for their turn
TURN_SECONDS: Final = 2.5

log = telemetry.logger(__name__)
_decode = msgspec.msgpack.Decoder(FileRequest).decode
_encode = msgspec.msgpack.Encoder().encode


class Serving:
    """Answers what is asked about files, until it is cancelled."""

    def __init__(self, bus: Bus, workspaces: Workspaces, outputs: Outputs) -> None:
        self._bus = bus
        self._workspaces = workspaces
        self._outputs = outputs
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Be asked from now on. Those who are being answered when it ends are told to ask again."""
        async with (
            asyncio.TaskGroup() as group,
            self._bus.asked(self._workspaces.holds) as requests,
        ):
            async for asked in requests:
                group.create_task(self._answer(asked), name="files")

    async def _answer(self, asked: Asked) -> None:
        transfer = asked.transfer
        if (this := asyncio.current_task()) is not None:
            transfer.when_lost(this.cancel)
        try:
            await self._in_turn(asked)
            transfer.end()
        except ZeneError as err:
            transfer.fail(err)
        except Exception as err:  # the edge: whatever it is, who asked is told
            log.exception("files.broke")
            transfer.fail(
                ZeneError(f"Zene failed inside ({type(err).__name__}); see the worker's log.")
            )
        finally:
            transfer.close()

    async def _in_turn(self, asked: Asked) -> None:
        try:
            request = _decode(asked.request)
        except msgspec.DecodeError as err:  # a gateway of another release
            raise Unavailable(f"A worker does not know this request: {err}.") from err
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable("Too many files are being read and written.", retry_after=1) from None
        try:
            await self._do(request, asked.transfer)
        finally:
            self._turns.release()

    async def _do(self, request: FileRequest, transfer: Transfer) -> None:
        match request:
            case ReplaceProject():
                await transfer.send(_encode(await self._replace_project(request, transfer)))
            case ListFolder():
                await transfer.send(_encode(await self._list(request)))
            case ReadFile():
                await self._read(request, transfer)
            case WriteFile():
                await self._write(request, transfer)
            case ShowDiff():
                await transfer.send(_encode(await self._diff(request)))
            case ReadOutput():
                await transfer.send(await self._output(request))

    async def _replace_project(self, request: ReplaceProject, transfer: Transfer) -> Upload:
        unpacked = await self._workspaces.replace_project(request.project_id, _content(transfer))
        return Upload(files=unpacked.files, bytes=unpacked.bytes, dropped=unpacked.dropped)

    async def _list(self, request: ListFolder) -> Listing:
        async with self._opened(request) as workspace:
            page = await workspace.files.list(
                request.path, cursor=request.cursor, limit=request.limit
            )
        return Listing(items=tuple(map(_told, page.entries)), next_cursor=page.next_cursor)

    async def _read(self, request: ReadFile, transfer: Transfer) -> None:
        async with (
            self._opened(request) as workspace,
            aclosing(workspace.files.stream(request.path)) as chunks,
        ):
            async for chunk in chunks:
                await transfer.send(chunk)

    async def _write(self, request: WriteFile, transfer: Transfer) -> None:
        async with self._opened(request) as workspace:
            await workspace.files.write(request.path, _content(transfer), limit=request.limit)

    async def _diff(self, request: ShowDiff) -> Difference:
        await self._workspaces.create(request.session_id, request.project_id)
        found = await self._workspaces.diff(request.session_id)
        files = tuple(
            ChangedFile(path=f.path, added=f.added, removed=f.removed) for f in found.changes.files
        )
        return Difference(patch=found.patch, files=files)

    async def _output(self, request: ReadOutput) -> bytes:
        content, _ = await self._outputs.read(
            request.session_id, request.item_id, request.offset, request.limit
        )
        return content

    @asynccontextmanager
    async def _opened(
        self, request: ListFolder | ReadFile | WriteFile
    ) -> AsyncGenerator[Workspace, None]:
        await self._workspaces.create(request.session_id, request.project_id)
        async with self._workspaces.open(request.session_id) as workspace:
            yield workspace


def _told(entry: workspace_files.Entry) -> Entry:
    return Entry(
        name=entry.name,
        kind=entry.kind,
        size=entry.size,
        modified_at=rfc3339(int(entry.modified * 1000)),
    )


async def _content(transfer: Transfer) -> AsyncGenerator[bytes, None]:
    """What follows the request, to its end; raises where it breaks off."""
    while (piece := await transfer.receive()) is not None:
        yield piece

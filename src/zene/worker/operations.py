"""What the runner does for the agent's loop and its tools during one task."""

import asyncio
import codecs
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from zene import telemetry
from zene.agent.base import Finished
from zene.agent.history import lines
from zene.domain.errors import NotFound, Unavailable, ZeneError
from zene.domain.events import Draft, ItemDelta, ItemKind
from zene.domain.ids import Ids
from zene.domain.messages import ToolResult
from zene.domain.situation import Steer
from zene.domain.tasks import Lease
from zene.store import history, steers
from zene.tools.base import Done
from zene.tools.shell import recovered
from zene.tools.text import printable
from zene.worker import desk as clock
from zene.worker.desk import Desk
from zene.worker.live import Publisher
from zene.worker.tenure import HeldBench

LIVE_LIMIT = 256 * 1024  # bytes of one call's output that followers see as it comes
KEPT_IN_MEMORY = (
    16 * 1024
)  # bytes of output below which the item's own text is all there is to keep

LISTEN_SECONDS = 0.25  # between two looks for what the user said: steps may follow in milliseconds

log = telemetry.logger(__name__)


class TaskOperations:
    """Implements `agent.base.Operations` for one task."""

    def __init__(self, desk: Desk, lease: Lease, bench: HeldBench, publisher: Publisher) -> None:
        self.bench = bench
        self._desk = desk
        self._lease = lease
        self._publisher = publisher
        self._ids = Ids(clock.now_ms, secrets.token_bytes)
        self._listened_at = time.monotonic()

    def new_id(self, prefix: str) -> str:
        """A new id of that prefix; those of one run sort in the order in which they were made."""
        return self._ids.new(prefix)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return clock.now_ms()

    def delta(self, item_id: str, kind: ItemKind, offset: int, text: str) -> None:
        """Show followers more of an item."""
        self._show(ItemDelta(item_id=item_id, kind=kind, offset=offset, text=text))

    def context(self, item_id: str) -> "CallContext":
        """The surroundings of one call."""
        return CallContext(self._desk, self._lease, self.bench, item_id, self._show)

    async def together(
        self, work: Mapping[str, Callable[[], Awaitable[Done]]]
    ) -> AsyncGenerator[Finished, None]:
        """Run the calls side by side, as coroutine tasks that end with this generator."""
        ended: asyncio.Queue[asyncio.Task[Done]] = asyncio.Queue(len(work))
        running = {asyncio.ensure_future(call()): item_id for item_id, call in work.items()}
        for one in running:
            one.add_done_callback(ended.put_nowait)
        try:
            for _ in work:
                one = await ended.get()
                yield Finished(item_id=running[one], done=one.result())
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def changed_files(self) -> tuple[Sequence[str], int] | None:
        """Paths of the files that differ from what the session began with, found out beside its sandbox."""
        try:
            changes = await self._desk.workspaces.changed(self._lease.session_id)
        except ZeneError as err:
            log.warning("workspace.not_compared", task=self._lease.task_id, error=err.message)
            return None
        return [printable(file.path) for file in changes.files], changes.more_files

    def listen(self) -> None:
        """Look for what the user said at the next step, however short the last look or the start is ago."""
        self._listened_at = time.monotonic() - LISTEN_SECONDS

    async def steers(self) -> Sequence[Steer]:
        """What the user said, looked for now and then; what a step does not hear, a later one will, and no
        task succeeds before it has heard all.
        """
        now = time.monotonic()
        if now - self._listened_at < LISTEN_SECONDS:
            return ()
        self._listened_at = now
        try:
            return await self._desk.store.read(steers.unheard, self._lease.task_id)
        except Unavailable as err:
            log.warning("steers.not_read", task=self._lease.task_id, error=err.message)
            return ()

    async def outcome(self, item_id: str) -> ToolResult | None:
        """What the sandbox that still runs remembers of a call."""
        outcome = await self.bench.outcome(item_id)
        return None if outcome is None else recovered(outcome)

    def _show(self, delta: ItemDelta) -> None:
        self._publisher.delta(Draft(body=delta, task_id=self._lease.task_id, item_id=delta.item_id))


class CallContext:
    """Implements `tools.base.Context` for one call."""

    def __init__(
        self,
        desk: Desk,
        lease: Lease,
        bench: HeldBench,
        item_id: str,
        show: Callable[[ItemDelta], None],
    ) -> None:
        self.bench = bench
        self.item_id = item_id
        self._desk = desk
        self._lease = lease
        self._show = show
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0
        self._shown = 0
        self._unkept = bytearray()
        self._keeps = False

    async def emit(self, data: bytes, stream: int = 1) -> None:
        """Show followers the output, up to a limit, and keep it whole where it is long."""
        await self._keep(data)
        if self._shown >= LIVE_LIMIT:
            return
        text = printable(self._decoder.decode(data[: LIVE_LIMIT - self._shown]))
        self._shown += len(data)
        if self._shown >= LIVE_LIMIT:
            text += "\n[more output is not shown live]"
        if text:
            self._show(
                ItemDelta(
                    item_id=self.item_id,
                    kind="command",
                    offset=self._offset,
                    text=text,
                    stream="stderr" if stream == 2 else "stdout",
                )
            )
            self._offset += len(text)

    async def kept(self, call_id: str, offset: int, limit: int) -> tuple[bytes, int]:
        """Kept output of an earlier call; a short one's is the text of its result."""
        session_id = self._lease.session_id
        call = await self._desk.store.read(history.find_call, session_id, call_id)
        try:
            return await self._desk.outputs.read(session_id, call.item_id, offset, limit)
        except NotFound:
            whole = call.output.encode()
            return whole[offset : offset + limit], len(whole)

    async def earlier(self, offset: int, limit: int) -> tuple[Sequence[str], int]:
        """The session's whole history as lines."""
        items = await self._desk.store.read(history.all_items, self._lease.session_id)
        whole = list(lines(items))
        return whole[offset : offset + limit], len(whole)

    async def _keep(self, data: bytes) -> None:
        self._unkept += data
        if self._keeps or len(self._unkept) > KEPT_IN_MEMORY:
            self._keeps = True
            kept, self._unkept = bytes(self._unkept), bytearray()
            await self._desk.outputs.append(self._lease.session_id, self.item_id, kept)

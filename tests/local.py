"""Operations of the agent on a temporary folder: a real workspace and real commands, without a sandbox."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from zene.agent.base import Finished
from zene.domain.errors import InvalidInput, NotFound
from zene.domain.events import ItemKind
from zene.domain.messages import ToolResult
from zene.domain.situation import Steer
from zene.sandbox.base import Command, Exit, Output
from zene.tools.base import Context, Done, Entry, Workbench


class LocalBench:
    """A folder as /workspace. Commands run in it as they would in a sandbox, but nothing confines them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found = _contents(root)
        self.commands: list[Command] = []

    async def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        self.commands.append(command)
        begun = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            cwd=self.root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        room, dropped, timed_out = command.output_limit, 0, False
        try:
            async with asyncio.timeout(command.timeout_seconds):
                while data := await process.stdout.read(65536):
                    if room:
                        yield Output(1, data[:room])
                    dropped += max(0, len(data) - room)
                    room = max(0, room - len(data))
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        assert process.returncode is not None
        yield Exit(
            code=process.returncode,
            duration_ms=int((time.monotonic() - begun) * 1000),
            timed_out=timed_out,
            dropped_bytes=dropped,
        )

    async def read(self, path: str, limit: int) -> bytes:
        try:
            with self._place(path).open("rb") as file:
                return file.read(limit)
        except FileNotFoundError:
            raise NotFound(f"There is no file {path}.") from None
        except IsADirectoryError:
            raise InvalidInput(f"{path} is a folder.") from None

    async def write(self, path: str, content: bytes) -> None:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    async def list(self, path: str, limit: int) -> Sequence[Entry]:
        try:
            places = sorted(self._place(path).iterdir(), key=lambda place: os.fsencode(place.name))
            return [_entry(place) for place in places[:limit]]
        except FileNotFoundError:
            raise NotFound(f"There is no folder {path}.") from None

    def _place(self, path: str) -> Path:
        return self.root / path.removeprefix("/workspace").lstrip("/")


def _contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def _entry(place: Path) -> Entry:
    kind = "link" if place.is_symlink() else "folder" if place.is_dir() else "file"
    return Entry(name=place.name, kind=kind, size=place.lstat().st_size)


class LocalContext:
    """One call's surroundings, which keep what it emits."""

    def __init__(self, bench: Workbench, item_id: str, outputs: dict[str, bytes]) -> None:
        self.bench = bench
        self.item_id = item_id
        self.history: list[str] = []
        self._outputs = outputs

    async def emit(self, data: bytes, stream: int = 1) -> None:
        assert stream in (1, 2)
        self._outputs[self.item_id] = self._outputs.get(self.item_id, b"") + data

    async def kept(self, call_id: str, offset: int, limit: int) -> tuple[bytes, int]:
        if call_id not in self._outputs:
            raise NotFound(f"There is no call {call_id}.")
        whole = self._outputs[call_id]
        return whole[offset : offset + limit], len(whole)

    async def earlier(self, offset: int, limit: int) -> tuple[Sequence[str], int]:
        return self.history[offset : offset + limit], len(self.history)


class LocalOperations:
    """`agent.base.Operations` with a clock and ids that a test can foresee."""

    def __init__(self, bench: LocalBench) -> None:
        self.bench = bench
        self.can_compare = True
        self.clock_ms = 1_800_000_000_000
        self.shown: dict[str, str] = {}
        self.outputs: dict[str, bytes] = {}
        self.remembered: dict[str, ToolResult] = {}
        self.unheard: dict[str, str] = {}
        self.side_by_side: list[frozenset[str]] = []
        self._ids = 0

    def new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._ids:06d}"

    def now_ms(self) -> int:
        return self.clock_ms

    def pass_time(self, ms: int = 20) -> None:
        self.clock_ms += ms

    def delta(self, item_id: str, kind: ItemKind, offset: int, text: str) -> None:
        assert kind in ("message", "reasoning")
        before = self.shown.get(item_id, "")
        assert offset <= len(before), "a delta leaves a gap"
        self.shown[item_id] = before[:offset] + text

    def context(self, item_id: str) -> Context:
        return LocalContext(self.bench, item_id, self.outputs)

    async def together(
        self, work: Mapping[str, Callable[[], Awaitable[Done]]]
    ) -> AsyncGenerator[Finished, None]:
        self.side_by_side.append(frozenset(work))
        tasks = {asyncio.ensure_future(call()): item_id for item_id, call in work.items()}
        try:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield Finished(item_id=tasks[task], done=task.result())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def changed_files(self) -> tuple[Sequence[str], int] | None:
        if not self.can_compare:
            return None
        before, now = self.bench.found, _contents(self.bench.root)
        return sorted(path for path in before | now if before.get(path) != now.get(path)), 0

    async def steers(self) -> Sequence[Steer]:
        return [Steer(id=steer_id, text=text) for steer_id, text in self.unheard.items()]

    async def outcome(self, item_id: str) -> ToolResult | None:
        return self.remembered.get(item_id)

"""The processes that are measured: started, watched as trees, and ended by their own ids.

Each is put into a group of the kernel's CPU accounting where there is one (version 1 and root): it counts
nanoseconds of all that the process ever started, sandboxes and commands that have ended too. Elsewhere
the tree's own clocks are added up, and what ended in a sandbox counts in ticks of the kernel.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parent.parent

_ACCOUNTING = Path("/sys/fs/cgroup/cpuacct")
_READY_SECONDS = 60.0
_END_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")
_numbers = count()


def has_exact_accounting() -> bool:
    """Whether CPU time is the kernel's sum over all processes, not an addition of clocks."""
    return os.access(_ACCOUNTING / "cgroup.procs", os.W_OK)


class Child(Struct, frozen=True, kw_only=True):
    """A server that runs. `port` is what its ready line ended with, `ready_seconds` how long that took."""

    pid: int
    port: int
    ready_seconds: float
    group: Path | None

    def cpu_seconds(self) -> float:
        """CPU time of the process and all that it ever started."""
        if self.group is not None:
            return int((self.group / "cpuacct.usage").read_text()) / 1e9
        return sum(_clock(pid) + _ended(pid) for pid in self.tree())

    def memory_bytes(self) -> int:
        """Proportional set size of the process and all its descendants."""
        return sum(map(_memory, self.tree()))

    def tree(self) -> set[int]:
        """The process and its descendants that live now."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found, new = set[int](), [self.pid]
        while new:
            pid = new.pop()
            found.add(pid)
            new.extend(children.get(pid, ()))
        return found


@asynccontextmanager
async def started(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Child, None]:
    """Run a Python module as a server until its block ends; it is asked to end, then killed.

    It is ready with its first line that has `ready`. Raises RuntimeError where that never comes.
    """
    group = _make_group()
    join = 'echo $$ > "$0/cgroup.procs"; exec "$@"' if group else 'exec "$@"'
    with log.open("ab") as errors:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            join,
            str(group),
            sys.executable,
            "-m",
            *command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        port = await _port(process, log)
        took = time.perf_counter() - began
        yield Child(pid=process.pid, port=port, ready_seconds=took, group=group)
    finally:
        await _end(process)
        if group is not None:
            await _remove(group)


async def _port(process: asyncio.subprocess.Process, log: Path) -> int:
    assert process.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            async for line in process.stdout:
                if b"ready" in line:
                    return int(line.strip().replace(b":", b" ").split()[-1])
    said = await asyncio.to_thread(log.read_text)
    raise RuntimeError(f"a server did not become ready; its log ends with:\n{said[-2000:]}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _make_group() -> Path | None:
    if not has_exact_accounting():
        return None
    group = _ACCOUNTING / f"zene-benchmark-{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    return group


async def _remove(group: Path) -> None:
    """Remove the group once its last process is gone; a sandbox takes a moment to end."""
    for _ in range(100):
        with suppress(OSError):
            await asyncio.to_thread(group.rmdir)
            return
        await asyncio.sleep(0.05)


def _stat(pid: int) -> list[str]:
    """The fields of a process that follow its name; none where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _clock(pid: int) -> float:
    """The CPU clock of another process, which the kernel numbers by the process's id."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _ended(pid: int) -> float:
    """What the process's children used that it has waited for."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / _TICKS if fields else 0.0


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)

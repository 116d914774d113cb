"""What a sandbox costs: cold start, a command's round trip, destruction; wall and CPU time, n and medians.

CPU is that of all processes involved: this one, the launcher, and what is in the sandbox's cgroup. Run as
root: `python -m benchmarks.sandbox [starts] [commands]`.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from zene.sandbox.base import Command, Sandbox, Spec
from zene.sandbox.bwrap import BubblewrapProvider
from zene.sandbox.cgroups import Cgroups, find_cgroups

INSTALLATION = "benchmark"


def cpu_ms(pids: set[int]) -> float:
    """CPU time that the processes have had, to the nanosecond."""
    spent = 0
    for pid in pids:
        try:
            spent += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        except OSError:
            continue
    return spent / 1e6


def own_processes() -> set[int]:
    """This process and its children, the launcher among them."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {os.getpid(), *(int(pid) for pid in children)}


def inside_of(groups: Cgroups, label: str) -> set[int]:
    """The processes of the sandbox of that label."""
    return {pid for group in groups.find(label) for pid in group.processes()}


def row(name: str, wall: list[float], cpu: list[float] | None = None) -> None:
    """Print one line of the table."""
    wall.sort()
    middle, late = wall[len(wall) // 2], wall[int(len(wall) * 0.99)]
    spent = f"  cpu p50 {sorted(cpu)[len(cpu) // 2]:7.2f}" if cpu else ""
    print(f"{name:24} p50 {middle:7.2f}  p99 {late:7.2f} ms{spent}  n={len(wall)}")


async def starts(provider: BubblewrapProvider, groups: Cgroups, count: int) -> None:
    """Open a sandbox, run its first command, close it."""
    opened, closed, cpu = [], [], []
    for number in range(count):
        before, began = cpu_ms(own_processes()), time.perf_counter()
        sandbox = await provider.open(Spec(label=f"start-{number}", folders=()))
        await true(sandbox)
        opened.append((time.perf_counter() - began) * 1000)
        inside = inside_of(groups, f"start-{number}")
        cpu.append(cpu_ms(own_processes()) - before + cpu_ms(inside))
        began = time.perf_counter()
        await sandbox.close()
        closed.append((time.perf_counter() - began) * 1000)
    row("cold start, first `true`", opened, cpu)
    row("destroy", closed)


async def commands(provider: BubblewrapProvider, groups: Cgroups, count: int) -> None:
    """Run one command after the other in one sandbox."""
    sandbox = await provider.open(Spec(label="commands", folders=()))
    await true(sandbox)
    involved = own_processes() | inside_of(groups, "commands")
    before, took = cpu_ms(involved), []
    for _ in range(count):
        began = time.perf_counter()
        await true(sandbox)
        took.append((time.perf_counter() - began) * 1000)
    row("`true`", took, [(cpu_ms(involved) - before) / count])


async def true(sandbox: Sandbox) -> None:
    """The smallest command."""
    async for _ in sandbox.run(Command(argv=("/bin/true",), cwd="/")):
        pass


async def main(start_count: int = 50, command_count: int = 1000) -> None:
    """Measure and print."""
    groups = find_cgroups(INSTALLATION)
    if isinstance(groups, str):
        sys.exit(groups)
    with tempfile.TemporaryDirectory() as folder:
        provider = BubblewrapProvider(installation=INSTALLATION, data_dir=Path(folder))
        await provider.start()
        await starts(provider, groups, start_count)
        await commands(provider, groups, command_count)
        await provider.close()


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in sys.argv[1:])))

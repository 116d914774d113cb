"""Caps hold (guarantee G14): whatever a command does, it gets its share and its neighbours theirs."""

import asyncio
import os
import resource
import time

import pytest

from tests.contracts.sandbox.conftest import IMAGE_BYTES, IMAGE_INODES, python, run, shell
from zene.sandbox.base import MEBIBYTE, Command, Exit, Limits, Output, Sandbox, Spec
from zene.sandbox.bwrap import BubblewrapProvider

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no caps to hold")

FORK_BOMB = "bomb() { bomb | bomb & }; bomb; while :; do :; done"


async def test_memory_is_capped_and_the_exit_says_so(sandbox: Sandbox, limits: Limits) -> None:
    ran = await python(sandbox, f"x = bytearray({2 * limits.memory_bytes}); print('HELD')")
    assert ran.exit.out_of_memory
    assert ran.exit.code == -9
    assert b"HELD" not in ran.output
    after = await shell(sandbox, "echo alive")
    assert (after.text, after.exit.out_of_memory) == ("alive\n", False)


async def test_memory_of_many_small_processes_is_capped(sandbox: Sandbox) -> None:
    hold = "x = bytearray(16 << 20); import time; time.sleep(1000)"
    script = f"for i in $(seq 40); do python3 -I -S -c '{hold}' & sleep 0.05; done; wait"
    ran = await shell(sandbox, script, timeout_seconds=3)
    assert ran.exit.out_of_memory
    assert (await shell(sandbox, "echo alive")).text == "alive\n"


async def test_a_fork_bomb_ends_with_its_command(sandbox: Sandbox, limits: Limits) -> None:
    ran = await run(sandbox, "/bin/bash", "-c", FORK_BOMB, timeout_seconds=1)
    assert ran.exit.timed_out
    assert ran.exit.duration_ms < 6000
    # What was killed is reaped within moments: the last look counts.
    look = "for i in {1..50}; do n=$(ls /proc | grep -c '^[0-9]'); ((n < 6)) && break; sleep 0.1; done; echo $n"
    left = int((await run(sandbox, "/bin/bash", "-c", look)).text)
    assert left < 6 < limits.pids


async def test_processes_are_capped(sandbox: Sandbox, limits: Limits) -> None:
    script = "import os\ntry:\n while True:\n  if os.fork() == 0: os.read(os.pipe()[0], 1)\nexcept OSError as e: print(len([p for p in os.listdir('/proc') if p.isdigit()]), flush=True)"
    running = sandbox.run(Command(argv=("/usr/bin/python3", "-c", script)))
    frame = await anext(running)
    assert isinstance(frame, Output)
    assert int(frame.data) <= limits.pids
    await running.aclose()


async def test_cpu_is_capped(provider: BubblewrapProvider, spec: Spec) -> None:
    half = Spec(label="half", folders=(), limits=Limits(cpus=0.5, memory_bytes=256 * MEBIBYTE))
    sandbox = await provider.open(half)
    script = "import os, time\nos.fork(); end = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(sum(os.times()[:2]))"
    used = [float(line) for line in (await python(sandbox, script)).text.split()]
    assert sum(used) <= 2 * 0.5 * 1.1 + 0.1


async def test_bytes_on_disk_are_capped_over_all_folders(sandbox: Sandbox) -> None:
    script = "for p in . /tmp ~; do head -c 100M /dev/zero > $p/big; done; du -cb ./big /tmp/big ~/big | tail -1; rm big"
    total = int((await shell(sandbox, script)).text.split()[-2])
    assert total <= IMAGE_BYTES
    assert (await shell(sandbox, "echo room > again; cat again")).text == "room\n"


async def test_inodes_are_capped(sandbox: Sandbox) -> None:
    script = "import os\ntry:\n for n in range(1000000): open(f'f{n}', 'w').close()\nexcept OSError as e: print(n)"
    assert int((await python(sandbox, script)).text) < IMAGE_INODES


async def test_a_command_that_only_writes_costs_the_host_little_and_is_counted(
    sandbox: Sandbox,
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    frames = sandbox.run(Command(argv=("yes",), timeout_seconds=2, output_limit=1 << 20))
    kept, last = 0, None
    async for frame in frames:
        kept += len(frame.data) if isinstance(frame, Output) else 0
        last = frame
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert isinstance(last, Exit)
    assert kept == 1 << 20
    assert last.timed_out
    assert last.dropped_bytes > 100 << 20
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert after.ru_maxrss - before.ru_maxrss < 20 * 1024


async def test_a_slow_reader_costs_the_host_no_more_than_a_window(sandbox: Sandbox) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    running = sandbox.run(Command(argv=("yes",), output_limit=1 << 30))
    await anext(running)
    await shell(sandbox, "sleep 0.5")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * 1024
    await running.aclose()


async def test_a_neighbour_is_served_beside_a_bomb(
    provider: BubblewrapProvider, sandbox: Sandbox
) -> None:
    neighbour = await provider.open(Spec(label="neighbour", folders=()))
    spin = asyncio.create_task(run(sandbox, "/bin/bash", "-c", FORK_BOMB, timeout_seconds=3))
    took = []
    while not spin.done():
        began = time.perf_counter()
        await run(neighbour, "true")
        took.append(time.perf_counter() - began)
    assert (await spin).exit.timed_out
    assert sorted(took)[len(took) // 2] < 0.05


async def test_the_kernels_small_pools_are_the_sandboxes_own(sandbox: Sandbox) -> None:
    """Shared memory, message queues and watches run out for the one who takes them all."""
    script = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print(sum(libc.msgget(0, 0o1600) >= 0 for _ in range(40000)) < 40000)\n"
        "print(sum(libc.inotify_init() >= 0 for _ in range(10000)) < 10000)\n"
    )
    assert (await python(sandbox, script)).text == "True\nTrue\n"
    assert (await shell(sandbox, "echo alive")).text == "alive\n"

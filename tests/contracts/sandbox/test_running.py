"""What a sandbox does with commands: `base.Sandbox` and `base.Command`, line by line."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.sandbox.conftest import first_output, python, run, shell
from zene.domain.errors import InvalidInput, SandboxGone
from zene.sandbox.base import Command, Exit, Limits, Output, Sandbox, Spec
from zene.sandbox.bwrap import BubblewrapProvider

SLEEP = ("/bin/sleep", "100")


async def test_a_command_runs_in_the_workspace_as_its_owner(sandbox: Sandbox) -> None:
    ran = await shell(sandbox, "pwd; id -u; echo kept > file; stat -c %u file; echo $HOME $TMPDIR")
    assert ran.text == "/workspace\n10001\n10001\n/home/zene /tmp\n"
    assert ran.exit.code == 0


async def test_files_stay_when_the_sandbox_is_replaced(
    provider: BubblewrapProvider, spec: Spec
) -> None:
    first = await provider.open(spec)
    await shell(first, "echo kept > file; echo x > ~/x; echo y > /tmp/y")
    second = await provider.open(spec)
    assert (await shell(second, "cat file ~/x /tmp/y")).text == "kept\nx\ny\n"
    with pytest.raises(SandboxGone):
        await run(first, "true")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 137", 137),
        ("exit 255", 255),
        ("kill -9 $$", -9),
        ("kill -TERM $$", -15),
    ],
)
async def test_the_exit_says_how_the_program_ended(
    sandbox: Sandbox, script: str, code: int
) -> None:
    assert (await shell(sandbox, script)).exit.code == code


async def test_an_exit_code_over_255_is_cut_as_posix_does(sandbox: Sandbox) -> None:
    assert (await python(sandbox, "import os; os._exit(300)")).exit.code == 300 % 256


async def test_stderr_goes_where_stdout_goes_unless_split(sandbox: Sandbox) -> None:
    together = await shell(sandbox, "echo out; echo err >&2")
    assert (together.output, together.errors) == (b"out\nerr\n", b"")
    apart = await shell(sandbox, "echo out; echo err >&2", split=True)
    assert (apart.output, apart.errors) == (b"out\n", b"err\n")


async def test_a_program_that_is_not_there_is_exit_127(sandbox: Sandbox) -> None:
    ran = await run(sandbox, "no-such-program")
    assert ran.exit.code == 127
    assert b"no-such-program" in ran.output


async def test_a_file_that_is_no_program_is_exit_126(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "/etc/passwd")).exit.code == 126


@pytest.mark.parametrize("cwd", ["/nowhere", "/proc/self/fd/3", "/etc/passwd"])
async def test_a_folder_that_is_none_is_refused(sandbox: Sandbox, cwd: str) -> None:
    ran = await run(sandbox, "true", cwd=cwd)
    assert ran.exit.code in {126, 127}
    assert cwd.encode() in ran.output


@pytest.mark.parametrize(
    "command",
    [
        Command(argv=()),
        Command(argv=("echo", "a\0b")),
        Command(argv=("true",), env={"A": "b\0c"}),
        Command(argv=("true", "x" * (1 << 20))),
        Command(argv=("true", *["x"] * 70_000)),
    ],
)
async def test_what_no_program_can_be_given_is_refused(sandbox: Sandbox, command: Command) -> None:
    with pytest.raises(InvalidInput):
        await anext(sandbox.run(command))
    assert (await run(sandbox, "true")).exit.code == 0


async def test_arguments_and_environment_arrive_as_they_are(sandbox: Sandbox) -> None:
    words = ["a b", "*", "$HOME", "'\"", "", "é\udc80", "-x"]
    script = "import os, sys; print(sys.argv[1:], os.environ['WORD'])"
    ran = await run(sandbox, "/usr/bin/python3", "-c", script, *words, env={"WORD": "1=2\n3"})
    assert ran.output.decode() == f"{words} 1=2\n3\n"


async def test_output_that_is_no_text_arrives_unchanged(sandbox: Sandbox) -> None:
    script = "import os; os.write(1, bytes(range(256)) * 400)"
    assert (await python(sandbox, script)).output == bytes(range(256)) * 400


async def test_a_long_line_arrives_whole_and_bounded(sandbox: Sandbox) -> None:
    ran = await shell(sandbox, "head -c 30000000 /dev/zero", output_limit=20_000_000)
    assert ran.output == bytes(20_000_000)
    assert ran.exit.dropped_bytes == 10_000_000
    assert ran.exit.code == 0


async def test_what_looks_like_a_frame_is_only_output(sandbox: Sandbox) -> None:
    forged = r"\004\001\000\000\000\021\000\000\000"
    ran = await shell(sandbox, f"printf '{forged}'; echo; exit 3")
    assert ran.output == b"\x04\x01\x00\x00\x00\x11\x00\x00\x00\n"
    assert ran.exit.code == 3


async def test_the_first_byte_comes_at_once(sandbox: Sandbox) -> None:
    command = Command(argv=("/bin/sh", "-c", "echo first; exec sleep 100"))
    running = sandbox.run(command)
    async with asyncio.timeout(5):
        assert first_output(await anext(running)) == b"first\n"
    await running.aclose()


async def test_many_small_writes_come_together(sandbox: Sandbox) -> None:
    script = "import os, time\nfor i in range(5000): os.write(1, b'x'); time.sleep(0.0001)"
    frames = [
        frame async for frame in sandbox.run(Command(argv=("/usr/bin/python3", "-c", script)))
    ]
    sizes = [len(frame.data) for frame in frames if isinstance(frame, Output)]
    last = frames[-1]
    assert isinstance(last, Exit)
    assert sum(sizes) == 5000
    assert len(sizes) <= last.duration_ms / 20 + 5


async def test_stdin_is_empty_unless_given(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "cat")).output == b""


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 100_000


async def test_stdin_is_streamed_to_its_end(sandbox: Sandbox) -> None:
    ran = await run(sandbox, "wc", "-c", stdin=chunks(50))
    assert ran.text.strip() == "5000000"


async def test_stdin_that_nobody_reads_does_not_hold_the_command(sandbox: Sandbox) -> None:
    ran = await shell(sandbox, "exit 4", stdin=chunks(50))
    assert ran.exit.code == 4


async def test_stdin_that_breaks_off_ends_the_command(sandbox: Sandbox) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionResetError("the upload broke off")

    with pytest.raises(ConnectionResetError):
        await run(sandbox, "cat", stdin=broken())
    assert (await run(sandbox, "true")).exit.code == 0


async def test_a_command_is_killed_when_its_time_is_up(sandbox: Sandbox) -> None:
    ran = await run(sandbox, *SLEEP, timeout_seconds=0.3)
    assert ran.exit.timed_out
    assert ran.exit.code == -9
    assert 300 <= ran.exit.duration_ms < 2000


@pytest.mark.parametrize("seconds", [-1.0, 0.0])
async def test_a_timeout_that_is_no_time_ends_at_once(sandbox: Sandbox, seconds: float) -> None:
    assert (await run(sandbox, *SLEEP, timeout_seconds=seconds)).exit.timed_out


async def test_an_absurd_timeout_is_cut(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "true", timeout_seconds=1e18)).exit.code == 0


TREES = {
    "a child": "sleep 1000 & wait",
    "deaf to SIGTERM": "trap '' TERM INT HUP; while :; do sleep 1000; done",
    "in a session of its own": "setsid sleep 1000 & wait",
    "forked twice": "(setsid sh -c 'setsid sleep 1000 & exit' &); tail -f /dev/null",
    "without an environment": "env -i setsid setsid sleep 1000 & wait",
    "stopped": "sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done; kill -STOP $!; wait",
}


@pytest.mark.parametrize("script", TREES.values(), ids=TREES)
async def test_leaving_early_kills_the_whole_tree(sandbox: Sandbox, script: str) -> None:
    running = sandbox.run(Command(argv=("/bin/sh", "-c", f"echo on; {script}")))
    assert first_output(await anext(running)) == b"on\n"
    await sleeping(sandbox, 1)
    await running.aclose()
    await sleeping(sandbox, 0)


async def test_cancelling_the_reader_kills_the_tree(sandbox: Sandbox) -> None:
    task = asyncio.create_task(shell(sandbox, "setsid sleep 1000 & wait"))
    await sleeping(sandbox, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sleeping(sandbox, 0)


async def test_a_command_that_is_killed_spares_its_neighbours(sandbox: Sandbox) -> None:
    await shell(sandbox, "setsid sleep 1000 > /dev/null & sleep 1000 > /dev/null &")
    neighbour = asyncio.create_task(shell(sandbox, "echo on; sleep 1000; echo never"))
    await sleeping(sandbox, 3)
    assert (await shell(sandbox, "sleep 1000 & wait", timeout_seconds=0.2)).exit.timed_out
    await sleeping(sandbox, 3)
    neighbour.cancel()
    await asyncio.wait([neighbour])
    await sleeping(sandbox, 2)


async def sleeping(sandbox: Sandbox, count: int) -> None:
    """Wait until so many processes of the sandbox are `sleep`."""
    script = f'until test "$(pgrep -c -x sleep)" = {count}; do :; done'
    assert (await shell(sandbox, script, timeout_seconds=5)).exit.code == 0


async def test_a_process_left_behind_does_not_hold_the_command(sandbox: Sandbox) -> None:
    began = time.monotonic()
    ran = await shell(sandbox, "(sleep 0.6; echo late; touch survived) & echo out; exit 5")
    assert time.monotonic() - began < 0.5
    assert (ran.exit.code, ran.output) == (5, b"out\n")
    assert (await shell(sandbox, "until test -e survived; do sleep 0.02; done")).exit.code == 0


async def test_a_noisy_process_left_behind_does_not_hold_the_command(sandbox: Sandbox) -> None:
    began = time.monotonic()
    ran = await shell(sandbox, "yes & exit 0", output_limit=1 << 30)
    assert ran.exit.code == 0
    assert time.monotonic() - began < 3
    assert (await shell(sandbox, "pkill -x yes; echo ok")).text == "ok\n"


async def test_commands_run_side_by_side(sandbox: Sandbox) -> None:
    waits = shell(sandbox, "until test -e go; do sleep 0.01; done; echo went")
    ran, _ = await asyncio.gather(waits, shell(sandbox, "touch go"))
    assert ran.text == "went\n"


async def test_a_slow_reader_stops_its_command_and_no_other(sandbox: Sandbox) -> None:
    command = Command(argv=("/bin/sh", "-c", "echo $$ > pid; exec yes"), output_limit=1 << 30)
    running = sandbox.run(command)
    await anext(running)
    written = await settled(sandbox, "cat /proc/$(cat pid)/io 2>/dev/null | grep wchar")
    assert int(written.split()[1]) < 4 << 20
    await running.aclose()


async def settled(sandbox: Sandbox, script: str) -> str:
    """What a script prints once it prints the same twice."""
    before = ""
    async with asyncio.timeout(10):
        while (now := (await shell(sandbox, script)).text) != before:
            before = now
            await asyncio.sleep(0.1)
    return now


async def test_the_outcome_of_a_call_is_remembered(sandbox: Sandbox) -> None:
    await shell(sandbox, "echo did it; exit 7", call_id="call-1")
    outcome = await sandbox.outcome("call-1")
    assert outcome is not None
    assert (outcome.exit.code, outcome.output) == (7, b"did it\n")


async def test_a_long_output_is_remembered_by_its_ends(sandbox: Sandbox) -> None:
    await shell(sandbox, "echo begin; head -c 1000000 /dev/zero; echo end", call_id="long")
    outcome = await sandbox.outcome("long")
    assert outcome is not None
    assert outcome.output.startswith(b"begin\n")
    assert outcome.output.endswith(b"end\n")
    assert b"bytes left out" in outcome.output
    assert len(outcome.output) <= 65 * 1024


async def test_a_call_that_never_began_has_no_outcome(sandbox: Sandbox) -> None:
    assert await sandbox.outcome("never") is None


async def test_asking_for_a_running_call_waits_for_it(sandbox: Sandbox) -> None:
    running = asyncio.create_task(
        shell(sandbox, "touch on; until test -e go; do sleep 0.01; done", call_id="slow")
    )
    await shell(sandbox, "until test -e on; do sleep 0.01; done")
    asking = asyncio.create_task(sandbox.outcome("slow"))
    await shell(sandbox, "touch go")
    outcome = await asking
    assert outcome is not None
    assert outcome.exit == (await running).exit


async def test_only_the_last_calls_are_remembered(sandbox: Sandbox) -> None:
    for number in range(70):
        await run(sandbox, "true", call_id=f"call-{number}")
    assert await sandbox.outcome("call-0") is None
    assert await sandbox.outcome("call-69") is not None


async def test_closing_twice_is_harmless_and_use_afterwards_is_refused(sandbox: Sandbox) -> None:
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(SandboxGone):
        await run(sandbox, "true")
    with pytest.raises(SandboxGone):
        await sandbox.outcome("any")


async def test_closing_ends_what_is_running(sandbox: Sandbox) -> None:
    running = sandbox.run(Command(argv=("/bin/sh", "-c", "echo on; sleep 1000")))
    await anext(running)
    waiting = asyncio.create_task(anext(running))
    await sandbox.close()
    with pytest.raises(SandboxGone):
        await waiting


async def test_killing_a_label_ends_its_sandbox(provider: BubblewrapProvider, spec: Spec) -> None:
    sandbox = await provider.open(spec)
    await provider.kill(spec.label)
    await provider.kill(spec.label)
    with pytest.raises(SandboxGone):
        await run(sandbox, "true")


async def test_killing_a_label_that_nothing_runs_under_is_harmless(
    provider: BubblewrapProvider,
) -> None:
    await provider.kill("nobody")


async def test_closing_the_provider_twice_is_harmless(
    provider: BubblewrapProvider, spec: Spec
) -> None:
    sandbox = await provider.open(spec)
    await provider.close()
    await provider.close()
    with pytest.raises(SandboxGone):
        await run(sandbox, "true")


async def test_a_folder_may_be_shown_read_only(provider: BubblewrapProvider, spec: Spec) -> None:
    first = await provider.open(spec)
    await shell(first, "echo kept > file")
    workspace = spec.folders[0]
    only_read = type(workspace)(
        target="/workspace", mount=workspace.mount, path=workspace.path, read_only=True
    )
    second = await provider.open(Spec(label="reader", folders=(only_read,)))
    ran = await shell(second, "cat file; touch other")
    assert ran.text.startswith("kept\n")
    assert "Read-only file system" in ran.text


async def test_a_library_of_the_host_is_shown_at_its_place(
    provider: BubblewrapProvider, tmp_path: Path
) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    (library / "module.py").write_text("answer = 42")
    sandbox = await provider.open(Spec(label="library", folders=(), read_only_paths=(library,)))
    ran = await shell(sandbox, f"cat {library}/module.py; touch {library}/x; ls {tmp_path}")
    assert ran.text.startswith("answer = 42")
    assert "Read-only file system" in ran.text
    assert ran.text.endswith("lib\n")


async def test_open_files_are_capped(sandbox: Sandbox, limits: Limits) -> None:
    script = (
        "import os\ntry:\n for n in range(1000000): os.dup(1)\nexcept OSError as e: print(n, e)"
    )
    ran = await python(sandbox, script)
    assert int(ran.text.split()[0]) < limits.open_files

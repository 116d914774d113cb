"""Commands, their output and how they end."""

import pytest

from tests.local import LocalBench, LocalContext
from zene.domain.errors import InvalidInput
from zene.domain.messages import ToolResult
from zene.sandbox.base import Exit, Outcome
from zene.tools import outputs, shell


async def run(context: LocalContext, command: str, seconds: float = 120) -> ToolResult:
    return (await shell.run(shell.Arguments(command, seconds), context)).result


async def test_output_and_success(context: LocalContext) -> None:
    result = await run(context, "echo one; echo two >&2")
    assert (result.status, result.output, result.exit_code) == ("succeeded", "one\ntwo", 0)


async def test_a_failure_is_told_with_its_exit_code(context: LocalContext) -> None:
    result = await run(context, "echo 'all tests pass'; exit 3")
    assert (result.status, result.exit_code) == ("failed", 3)
    assert result.output == "all tests pass\n[exit code 3]"


async def test_silence_is_told(context: LocalContext) -> None:
    assert (await run(context, "true")).output == "[no output]"
    assert (await run(context, "false")).output == "[exit code 1]"


async def test_a_signal_is_told(context: LocalContext) -> None:
    assert (await run(context, "kill -9 $$")).output == "[killed by signal 9]"


async def test_a_command_that_takes_too_long_is_killed(context: LocalContext) -> None:
    result = await run(context, "echo begun; exec sleep 60", -5)
    assert result.status == "failed"
    assert result.output == "begun\n[timed out after 1 s and was killed with all it had started]"


@pytest.mark.parametrize(("asked", "given"), [(-1.0, 1.0), (1e18, 600.0), (30.0, 30.0)])
async def test_the_time_limit_is_clamped(context: LocalContext, asked: float, given: float) -> None:
    await run(context, "true", asked)
    assert isinstance(context.bench, LocalBench)
    command = context.bench.commands[0]
    assert command.timeout_seconds == given
    assert command.argv == ("/bin/bash", "-c", "true")
    assert command.call_id == "itm_1"


@pytest.mark.parametrize("command", ["echo a\0b", "x" * 200_000])
async def test_a_command_that_cannot_be_passed_on_is_refused(
    context: LocalContext, command: str
) -> None:
    with pytest.raises(InvalidInput, match="Not run"):
        await run(context, command)


async def test_long_output_is_cut_and_stays_readable(context: LocalContext) -> None:
    output = (await run(context, "seq 1 20000")).output
    whole = "".join(f"{number}\n" for number in range(1, 20001))
    head, mark, tail = output.partition("\n[… ")
    assert whole.startswith(head)
    assert whole.endswith(tail.partition("…]\n")[2] + "\n")
    assert 'read_output with call_id "itm_1"' in output
    assert len(output.encode()) < shell.OUTPUT_LIMIT + 200
    begin = outputs.Arguments("itm_1", len(head), 20)
    shown = (await outputs.run(begin, context)).result.output
    assert mark
    assert shown == f"{whole[len(head) : len(head) + 20]}\n[bytes 8000 to 8020 of {len(whole)}]"


async def test_hostile_output_is_made_visible(context: LocalContext) -> None:
    hostile = r"printf 'nul\0 \377\376 over\rwritten \033[31mred\033[0m \033]0;t\007\r\n'"
    shown = (await run(context, hostile)).output
    assert shown == "nul␀ �� over\nwritten red ␛]0;t␇"


async def test_what_a_sandbox_remembers_reads_like_the_call_itself(context: LocalContext) -> None:
    direct = await run(context, "echo hello; exit 2")
    end = Exit(code=2, duration_ms=direct.duration_ms or 0)
    assert shell.recovered(Outcome(exit=end, output=b"hello\n")) == direct


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (Exit(code=-9, duration_ms=1, out_of_memory=True), "[killed: the sandbox ran out of memory]"),
        (Exit(code=0, duration_ms=1, dropped_bytes=7), "[the last 7 bytes were dropped, over the limit]"),
        (Exit(code=-9, duration_ms=1, timed_out=True), "[timed out and was killed with all it had started]"),
        (Exit(code=255, duration_ms=1), "[exit code 255]"),
    ],
)  # fmt: skip
def test_every_end_is_told(end: Exit, told: str) -> None:
    assert shell.recovered(Outcome(exit=end, output=b"")).output == told


async def test_the_history_is_read_by_lines(context: LocalContext) -> None:
    context.history = [f"line {number}" for number in range(500)]
    read = outputs.Arguments("history", 498, 1e18)
    shown = (await outputs.run(read, context)).result.output
    assert shown == "line 498\nline 499\n[lines 498 to 500 of 500]"

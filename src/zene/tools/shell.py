"""Run a command in the sandbox, streaming what it writes.

The command goes to a shell inside the sandbox and to none outside it. The model gets the beginning and
the end of the output and how the command ended; the whole of it is kept for `read_output`.
"""

from contextlib import aclosing

from msgspec import Struct

from zene.domain.errors import InvalidInput, SandboxGone
from zene.domain.messages import ToolResult
from zene.sandbox.base import Command, Exit, Outcome, Output
from zene.tools.base import Context, Done, Tool
from zene.tools.text import Clip

OUTPUT_LIMIT = 16_000  # bytes that the model gets
SECONDS, SECONDS_LIMIT = 120.0, 600.0
COMMAND_LIMIT = 128 * 1024 - 1  # bytes: what Linux takes as one argument


class Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """A command line, and when it is killed."""

    command: str
    timeout_seconds: float = SECONDS


async def run(arguments: Arguments, context: Context) -> Done:
    """Run it to its end. Cancelling kills its process tree."""
    command = arguments.command
    if "\0" in command:
        raise InvalidInput("Not run: the command holds a NUL character.")
    if len(command.encode()) > COMMAND_LIMIT:
        raise InvalidInput("Not run: longer than 128 KiB. Put it into a file and run that.")
    seconds = min(max(arguments.timeout_seconds, 1.0), SECONDS_LIMIT)
    clip, end = await _stream(
        Command(
            argv=("/bin/bash", "-c", command), timeout_seconds=seconds, call_id=context.item_id
        ),
        context,
    )
    more = f'read_output with call_id "{context.item_id}" shows them'
    return Done(result=_result(clip.text(more), end, seconds))


def recovered(outcome: Outcome) -> ToolResult:
    """What the model is told of a command whose end was seen by the sandbox alone."""
    clip = Clip(OUTPUT_LIMIT)
    clip.add(outcome.output)
    return _result(clip.text("they were not kept"), outcome.exit, None)


async def _stream(command: Command, context: Context) -> tuple[Clip, Exit]:
    clip = Clip(OUTPUT_LIMIT)
    async with aclosing(context.bench.run(command)) as outputs:
        async for output in outputs:
            match output:
                case Output(stream=stream, data=data):
                    clip.add(data)
                    await context.emit(data, stream)
                case Exit():
                    return clip, output
    raise SandboxGone("The command has no end.")


def _result(text: str, end: Exit, seconds: float | None) -> ToolResult:
    notes = list(_notes(end, seconds))
    body = text.removesuffix("\n")
    return ToolResult(
        status="succeeded" if end.code == 0 and not end.timed_out else "failed",
        output="\n".join(filter(None, (body, *notes))) or "[no output]",
        exit_code=end.code,
        duration_ms=end.duration_ms,
    )


def _notes(end: Exit, seconds: float | None) -> list[str]:
    """How it ended, where that is not simply well."""
    notes = []
    if end.dropped_bytes:
        notes.append(f"[the last {end.dropped_bytes} bytes were dropped, over the limit]")
    if end.timed_out:
        after = "" if seconds is None else f" after {seconds:g} s"
        notes.append(f"[timed out{after} and was killed with all it had started]")
    elif end.out_of_memory:
        notes.append("[killed: the sandbox ran out of memory]")
    elif end.code < 0:
        notes.append(f"[killed by signal {-end.code}]")
    elif end.code:
        notes.append(f"[exit code {end.code}]")
    return notes


SHELL = Tool(
    name="shell",
    description="Run a bash command in /workspace. timeout_seconds: default 120, at most 600.",
    arguments=Arguments,
    run=run,
    kind="command",
    read_only=False,
)

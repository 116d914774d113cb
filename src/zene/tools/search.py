"""Find files by name and lines by pattern, with ripgrep inside the sandbox.

Its regular expressions take linear time; a short time limit and bounds on the output hold all the same.
"""

from contextlib import aclosing

from msgspec import Struct

from zene.domain.errors import InvalidInput, SandboxGone
from zene.sandbox.base import Command, Exit, Output
from zene.tools.base import Context, Done, Tool, failed, succeeded
from zene.tools.paths import inside
from zene.tools.text import printable

SECONDS = 2.0
OUTPUT_LIMIT = 16_000  # bytes
COLUMNS = 300
NOT_FOUND, BAD = 1, 2  # ripgrep's exit codes


class Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for, and below which folder."""

    pattern: str
    path: str = "."


async def find(arguments: Arguments, context: Context) -> Done:
    """Names of files, one a line."""
    options = ("--files", f"--glob={_checked(arguments.pattern)}")
    return await _ripgrep(options, arguments.path, context)


async def search(arguments: Arguments, context: Context) -> Done:
    """Lines as `path:line:text`."""
    options = (
        "--line-number",
        "--no-heading",
        "--with-filename",
        f"--max-columns={COLUMNS}",
        "--max-columns-preview",
        f"--regexp={_checked(arguments.pattern)}",
    )
    return await _ripgrep(options, arguments.path, context)


def _checked(pattern: str) -> str:
    if not pattern or "\0" in pattern or len(pattern) > 4096:
        raise InvalidInput("Not run: the pattern is empty, too long, or holds a NUL character.")
    return pattern


async def _ripgrep(options: tuple[str, ...], path: str, context: Context) -> Done:
    """Sorted by path, so that the same files give the same answer; .git left out."""
    common = ("--no-config", "--color=never", "--hidden", "--sort=path")
    where = ("--glob=!.git/", "--", f"./{inside(path)}")
    command = Command(
        argv=("rg", *common, *options, *where),
        timeout_seconds=SECONDS,
        output_limit=OUTPUT_LIMIT,
    )
    output, end = await _output(command, context)
    text = printable(output.decode(errors="replace").removesuffix("\n"))
    if end.timed_out:
        return failed(
            f"Stopped after {SECONDS:g} s. Narrow the pattern or the path.\n{text}".rstrip()
        )
    if end.code == NOT_FOUND and not text:
        return succeeded("[nothing found]")
    if end.code not in (0, NOT_FOUND):
        return failed(text if end.code == BAD else f"{text}\n[rg ended with {end.code}]".strip())
    lines = [line.removeprefix("./").removeprefix("./") for line in text.split("\n")]
    if end.dropped_bytes:
        lines[-1] = f"[… {end.dropped_bytes} bytes more; narrow the pattern or the path]"
    return succeeded("\n".join(lines))


async def _output(command: Command, context: Context) -> tuple[bytes, Exit]:
    pieces: list[bytes] = []
    async with aclosing(context.bench.run(command)) as outputs:
        async for output in outputs:
            match output:
                case Output(data=data):
                    pieces.append(data)
                case Exit():
                    return b"".join(pieces), output
    raise SandboxGone("The search has no end.")


FIND_FILES = Tool(
    name="find_files",
    description="Find files by glob, e.g. *.py or src/**/test_*. Ignored files are left out.",
    arguments=Arguments,
    run=find,
)
SEARCH_FILES = Tool(
    name="search_files",
    description="Search file contents by regular expression; gives path:line:text.",
    arguments=Arguments,
    run=search,
)

"""Read, write and list files of the workspace."""

from msgspec import Struct

from zene.domain.errors import InvalidInput
from zene.domain.messages import ToolResult
from zene.tools.base import Context, Done, Entry, Tool, succeeded
from zene.tools.paths import inside
from zene.tools.text import printable

FILE_LIMIT = 8 << 20  # bytes of a file that are looked at; commands take larger ones
TEXT_LIMIT = 40_000  # characters of a file that the model gets at once
LINES, LINES_LIMIT = 1000.0, 5000.0
LINE_LIMIT = 2000  # characters of one line
ENTRIES_LIMIT = 1000


class Read(Struct, frozen=True, forbid_unknown_fields=True):
    """Lines of a file, counted from 1."""

    path: str
    offset: float = 1.0
    limit: float = LINES


class Write(Struct, frozen=True, forbid_unknown_fields=True):
    """A file and all that it is to hold."""

    path: str
    content: str


class Folder(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder; the workspace itself by default."""

    path: str = "."


async def text_of(context: Context, path: str) -> str:
    """A text file, whole. Raises InvalidInput for one that is too large or not text."""
    content = await context.bench.read(path, FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise InvalidInput(f"{path} is larger than 8 MiB. Use shell, for example sed -n or grep.")
    if b"\0" in content[:8192]:
        raise InvalidInput(
            f"{path} is not text ({len(content)} bytes). Use shell, for example xxd."
        )
    return content.decode(errors="replace")


async def read(arguments: Read, context: Context) -> Done:
    """Some lines, and where to go on when there are more."""
    path = inside(arguments.path)
    lines = (await text_of(context, path)).split("\n")
    if lines[-1] == "":
        lines.pop()
    first = int(min(max(arguments.offset, 1.0), 1e9)) - 1
    limit = int(min(max(arguments.limit, 1.0), LINES_LIMIT))
    if not lines:
        return succeeded("[the file is empty]")
    if first >= len(lines):
        raise InvalidInput(f"{path} has only {len(lines)} lines.")
    shown = _bounded(lines[first : first + limit])
    last = first + len(shown)
    text = printable("\n".join(shown))
    if last < len(lines):
        text += f"\n[lines {first + 1} to {last} of {len(lines)}; go on with offset {last + 1}]"
    return Done(result=ToolResult(status="succeeded", output=text), path=path)


def _bounded(lines: list[str]) -> list[str]:
    """As many of the lines as the model gets at once, at least one, the long ones cut."""
    shown: list[str] = []
    room = TEXT_LIMIT
    for line in lines:
        cut = line.removesuffix("\r")
        if len(cut) > LINE_LIMIT:
            cut = f"{cut[:LINE_LIMIT]}[… {len(cut) - LINE_LIMIT} characters more]"
        room -= len(cut) + 1
        if room < 0 and shown:
            break
        shown.append(cut)
    return shown


async def write(arguments: Write, context: Context) -> Done:
    """Make the file hold exactly this."""
    path = inside(arguments.path)
    content = arguments.content.encode()
    await context.bench.write(path, content)
    text = f"Wrote {len(content)} bytes to {path}."
    return Done(result=ToolResult(status="succeeded", output=text), path=path)


async def list_folder(arguments: Folder, context: Context) -> Done:
    """The names in a folder, folders with a slash."""
    path = inside(arguments.path)
    entries = await context.bench.list(path, ENTRIES_LIMIT + 1)
    names = [_name(entry) for entry in entries[:ENTRIES_LIMIT]]
    if len(entries) > ENTRIES_LIMIT:
        names.append(f"[… more than {ENTRIES_LIMIT} in all; find_files or shell shows the others]")
    return succeeded(printable("\n".join(names)) or "[the folder is empty]")


def _name(entry: Entry) -> str:
    name = entry.name.replace("\n", "␊")
    return name + {"folder": "/", "link": "@"}.get(entry.kind, "")


READ_FILE = Tool(
    name="read_file",
    description="Read lines of a text file. offset: first line, from 1.",
    arguments=Read,
    run=read,
)
WRITE_FILE = Tool(
    name="write_file",
    description="Create or replace a file; missing folders are made.",
    arguments=Write,
    run=write,
    kind="file_change",
    read_only=False,
)
LIST_FILES = Tool(
    name="list_files", description="List a folder.", arguments=Folder, run=list_folder
)

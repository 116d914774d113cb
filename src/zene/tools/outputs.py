"""Read what was cut: the whole output of an earlier call, or the whole conversation."""

from msgspec import Struct

from zene.tools.base import Context, Done, Tool, succeeded
from zene.tools.text import printable

HISTORY = "history"
SIZE, SIZE_LIMIT = 16_000, 40_000  # bytes of an output
LINES, LINES_LIMIT = 200, 1000  # lines of the history
LINE_LIMIT = 1000  # characters


class Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Which call, and which part: bytes of an output, lines of the history. No limit means the usual."""

    call_id: str
    offset: float = 0.0
    limit: float = 0.0


async def run(arguments: Arguments, context: Context) -> Done:
    """The part that was asked for, and how much there is."""
    offset = int(min(max(arguments.offset, 0.0), 1e12))
    if arguments.call_id == HISTORY:
        lines, count = await context.earlier(offset, _limit(arguments, LINES, LINES_LIMIT))
        cut = [line[:LINE_LIMIT] for line in lines]
        return _part("\n".join(cut), offset, offset + len(lines), count, "lines")
    limit = _limit(arguments, SIZE, SIZE_LIMIT)
    data, size = await context.kept(arguments.call_id, offset, limit)
    text = data.decode(errors="replace").strip("�")
    return _part(text, offset, offset + len(data), size, "bytes")


def _limit(arguments: Arguments, usual: int, most: int) -> int:
    return int(min(arguments.limit, most)) if arguments.limit >= 1 else usual


def _part(text: str, start: int, end: int, size: int, unit: str) -> Done:
    return succeeded(f"{printable(text)}\n[{unit} {start} to {end} of {size}]")


READ_OUTPUT = Tool(
    name="read_output",
    description=(
        "Read on in an earlier call's output that was cut (offset and limit in bytes) "
        'or, with call_id "history", the whole conversation (in lines).'
    ),
    arguments=Arguments,
    run=run,
)

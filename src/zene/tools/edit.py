"""Replace an exact piece of a file. A piece that stands there twice, or not at all, changes nothing."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import islice

from msgspec import Struct

from zene.domain.errors import InvalidInput
from zene.domain.messages import ToolResult
from zene.tools.base import Context, Done, Tool
from zene.tools.files import FILE_LIMIT
from zene.tools.paths import inside
from zene.tools.text import printable

PLACES_LIMIT = 10  # matches that are named
# Bounds on the search for what was meant, which would else take seconds on a large file.
LINES_COMPARED, CHARACTERS_COMPARED, CANDIDATES = 10_000, 160, 20
NEAR = 0.6  # of SequenceMatcher's ratio
NEIGHBOURS = 2  # lines shown before and after the nearest one
_WORD = re.compile(r"\w+|[^\w\s]+")


class Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands there, and what is to stand there."""

    path: str
    old_text: str
    new_text: str


async def run(arguments: Arguments, context: Context) -> Done:
    """Make the one replacement. A file with Windows line ends keeps them."""
    path = inside(arguments.path)
    content = await context.bench.read(path, FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise InvalidInput(f"{path} is larger than 8 MiB. Use shell, for example sed -i.")
    old, new = arguments.old_text, arguments.new_text
    if old and "\r" not in old and b"\r\n" in content:
        old, new = (text.replace("\n", "\r\n") for text in (old, new.replace("\r\n", "\n")))
    changed, line = replaced(content, old.encode(), new.encode(), path)
    await context.bench.write(path, changed)
    text = f"Replaced at line {line} of {path}."
    return Done(result=ToolResult(status="succeeded", output=text), path=path)


def replaced(content: bytes, old: bytes, new: bytes, path: str) -> tuple[bytes, int]:
    """The content with the one place changed, and its line. Raises InvalidInput saying why not."""
    if not old:
        raise InvalidInput("Nothing changed: old_text is empty. write_file makes a new file.")
    if old == new:
        raise InvalidInput("Nothing changed: old_text and new_text are the same.")
    places = list(islice(_places(content, old), PLACES_LIMIT + 1))
    if not places:
        raise InvalidInput(
            f"Nothing changed: {path} does not hold old_text. {_nearest(content, old)}"
        )
    if len(places) > 1:
        raise InvalidInput(f"Nothing changed: {path} holds old_text {_several(content, places)}")
    place = places[0]
    return content[:place] + new + content[place + len(old) :], _line(content, place)


def _places(content: bytes, old: bytes) -> Iterator[int]:
    """Every place where it stands, overlapping ones too: each of them could be meant."""
    place = content.find(old)
    while place != -1:
        yield place
        place = content.find(old, place + 1)


def _line(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1


def _several(content: bytes, places: list[int]) -> str:
    lines = [str(_line(content, place)) for place in places[:PLACES_LIMIT]]
    more = " and more" if len(places) > PLACES_LIMIT else ""
    times = f"more than {PLACES_LIMIT}" if more else str(len(places))
    where = f"at lines {', '.join(lines)}{more}"
    return f"{times} times, {where}. Make old_text longer, so that it names one place."


def _nearest(content: bytes, old: bytes) -> str:
    """The lines that come nearest to what was looked for, with their numbers."""
    text = content.decode(errors="replace").replace("\r\n", "\n")
    lines = text.removesuffix("\n").split("\n")  # as read_file counts them
    wanted = max(old.decode(errors="replace").splitlines(), key=lambda line: len(line.strip()))
    number = _most_like(wanted.strip()[:CHARACTERS_COMPARED], lines)
    if number is None:
        return "No line of it is like any; read the file again."
    around = range(max(0, number - NEIGHBOURS), min(len(lines), number + NEIGHBOURS + 1))
    shown = "\n".join(f"{at + 1}: {lines[at][:500]}" for at in around)
    return f"The nearest lines (number: text):\n{printable(shown)}"


def _most_like(wanted: str, lines: list[str]) -> int | None:
    """The line most like it: of those that share words with it, the one that reads most alike."""
    words = _words(wanted)
    shared = (
        (len(words & _words(line[:CHARACTERS_COMPARED])), -number)
        for number, line in enumerate(islice(lines, LINES_COMPARED))
    )
    candidates = [-place for count, place in nlargest(CANDIDATES, shared) if count]
    ratio, place = max(((_ratio(wanted, lines[at]), -at) for at in candidates), default=(0.0, 0))
    return -place if ratio >= NEAR else None


def _words(line: str) -> set[str]:
    return set(_WORD.findall(line))


def _ratio(wanted: str, line: str) -> float:
    other = line.strip()[:CHARACTERS_COMPARED]
    return SequenceMatcher(None, wanted, other, autojunk=False).ratio()


EDIT_FILE = Tool(
    name="edit_file",
    description="Replace old_text, which must stand exactly once in the file, by new_text.",
    arguments=Arguments,
    run=run,
    kind="file_change",
    read_only=False,
)

"""The terminal: what comes from models, commands and servers is shown, and never obeyed.

Text of others can hold sequences that move the cursor, set the title or answer a prompt. All control
characters but tab and newline are shown as escapes, and so are those that reverse or hide text.
"""

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan"]

_CODES: dict[Style, int] = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def safe(text: str) -> str:
    """The text with control, bidirectional and invisible characters shown as escapes."""
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def styled(text: str, style: Style, stream: TextIO | None = None) -> str:
    """The text in that style where `stream` (stdout) is a terminal that wants colours."""
    stream = stream or sys.stdout
    if not stream.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def say(text: str = "", *, end: str = "\n") -> None:
    """Write to stdout at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """Write to stderr, where it does not mix with what a script reads."""
    sys.stdout.flush()
    sys.stderr.write(styled(text, "dim", sys.stderr) + "\n")
    sys.stderr.flush()


def complain(message: str) -> None:
    """An error in one paragraph on stderr."""
    sys.stdout.flush()
    sys.stderr.write(styled("zene: ", "red", sys.stderr) + safe(message) + "\n")
    sys.stderr.flush()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it Ctrl-C ends a blocking read at once; asyncio would put it off until the read has ended."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their heads, columns as wide as they need to be."""
    lines = [list(heads), *([safe(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([styled(shown[0], "dim"), *shown[1:]])


def typed(command: str) -> str:
    """`zene` with these words as they can be typed here: by its path where the shell would not find it."""
    program = Path(sys.argv[0]).absolute()
    found = shutil.which("zene")
    if program.name != "zene" or (found and program.samefile(found)):
        return f"zene {command}"
    here = Path.cwd()
    shown = program.relative_to(here) if program.is_relative_to(here) else program
    return f"{shlex.quote(str(shown))} {command}"


def counted(count: int, what: str) -> str:
    """A number and its noun, which takes an s where there is more than one."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def size(count: int) -> str:
    """A number of bytes in the unit that fits it."""
    for unit, bytes_of_it in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_of_it:
            return f"{count / bytes_of_it:.1f} {unit}"
    return counted(count, "byte")


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

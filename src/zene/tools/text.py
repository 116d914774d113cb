"""Text that comes from outside, made safe to show: bounded, valid, and with nothing in it that hides.

Nothing is dropped silently: what cannot be shown is replaced by a sign, what is cut leaves a mark.
"""

import re

# C0 controls but tab and newline become Unicode's control pictures; C1 and the invisible tag characters,
# in which text can be hidden, become a replacement character.
_SIGNS = (
    {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
    | dict.fromkeys(range(0xE0000, 0xE0080), 0xFFFD)
)
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\U000e0000-\U000e007f]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")


def printable(text: str) -> str:
    """The text without colour codes and with every control character shown; `\\r` never overwrites."""
    if _UNSAFE.search(text) is None:
        return text
    text = _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_SIGNS)


class Clip:
    """The beginning and the end of a stream of bytes, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Take more of the stream."""
        self.size += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._half :]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self, more: str) -> str:
        """What is kept; between its two parts a mark saying how much is missing and, as `more`, where it is."""
        tail = bytes(self._tail[-self._half :])
        missing = self.size - len(self._head) - len(tail)
        if missing == 0:
            return printable(bytes(self._head + tail).decode(errors="replace"))
        head = bytes(self._head).decode(errors="replace").rstrip("�")
        mark = f"\n[… {missing} bytes left out; {more} …]\n"
        return printable(head + mark + tail.decode(errors="replace").lstrip("�"))


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and end with a mark between them where it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}[… {len(text) - 2 * half} characters left out …]{text[-half:]}"

"""Server-sent events out of bytes that are cut anywhere.

Only the `data` of an event is kept: all wire formats name the event inside its JSON too. Follows the WHATWG
HTML standard, section 9.2: an event that the end of the stream cuts off is dropped.
"""

from zene.domain.errors import ModelError

EVENT_LIMIT = 8 << 20  # bytes of one event; a token's event is about 200
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventParser:
    """Feed it a stream's bytes in order; it returns the data of every event that is now whole."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._after_cr = False
        self._is_first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises ModelError (`model_bad_response`) when one event grows over the limit."""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_newlines(chunk)
        pending = self._pending
        unseen = max(len(pending) - 1, 0)
        pending += chunk
        end = pending.rfind(b"\n\n", unseen)
        if end < 0:
            if len(pending) > self._limit:
                raise ModelError(
                    f"The model's server sent one event of more than {self._limit} bytes.",
                    code="model_bad_response",
                )
            return []
        whole = bytes(pending[:end])
        del pending[: end + 2]
        return self._events(whole)

    @property
    def is_noise(self) -> bool:
        """Bytes came, but never a whole event."""
        return self._is_first and bool(self._pending)

    def _events(self, whole: bytes) -> list[bytes]:
        if self._is_first:
            self._is_first = False
            whole = whole.removeprefix(_BYTE_ORDER_MARK)
        found = []
        for event in whole.split(b"\n\n"):
            data = _data(event)
            if data:
                found.append(data)
        return found

    def _with_newlines(self, chunk: bytes) -> bytes:
        """CR, LF and CR LF all end a line, also where the pair is cut between two chunks."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [
        line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(lines)

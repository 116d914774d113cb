"""An event as it goes over the line of a stream: server-sent events, whose data nothing in it can end."""

from typing import Final

from zene.bus.base import Live

_OTHER_LINE_ENDS: Final = tuple(
    (char.encode(), f"\\u{ord(char):04x}".encode()) for char in ("\x85", "\u2028", "\u2029")
)


def frame(event: Live) -> bytes:
    """The event with its JSON on one line; only a durable one has an id."""
    kind, body = event.type.encode(), event.body
    if not body.isascii():
        body = _one_line(body)
    if event.durable:
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, kind, body)
    return b"event: %s\ndata: %s\n\n" % (kind, body)


def _one_line(body: bytes) -> bytes:
    """JSON escapes CR and LF; what else some readers take for the end of a line is escaped here."""
    for raw, escaped in _OTHER_LINE_ENDS:
        if raw in body:
            body = body.replace(raw, escaped)
    return body

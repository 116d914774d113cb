"""The stream between host and runner: a kind, the number of a call and a length, then the payload.

Both directions have a window of bytes that the other side has not yet granted again, so that neither can
be made to hold more. The runner trusts its host; the host trusts nothing that the runner sends.
"""

from __future__ import annotations

import posix
import struct

HEADER = struct.Struct("<BII")
START_FIELDS = struct.Struct("<IQHHB")  # timeout in ms, output limit, number of argv and env, flags
EXIT_FIELDS = struct.Struct("<iIQB")  # code, duration in ms, dropped bytes, flags
COUNT = struct.Struct("<I")

START, STDIN, KILL, ASK, GRANT = 1, 2, 3, 4, 5  # from the host
HELLO, STDOUT, STDERR, EXIT, OUTCOME, TAKEN = 1, 2, 3, 4, 5, 6  # to the host
SPLIT, HAS_STDIN = 1, 2  # flags of START
TIMED_OUT = 1  # flag of EXIT

CHUNK = 64 * 1024
WINDOW = 256 * 1024
STDIN_WINDOW = 64 * 1024


class Wire:
    """The runner's end. Writing blocks: the host always reads, since windows bound what it must hold."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self._sink = sink
        self._received = bytearray()

    def send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        """Send one frame."""
        data = memoryview(HEADER.pack(kind, channel, len(payload)) + payload)
        while data:
            data = data[posix.write(self._sink, data) :]

    def receive(self) -> list[tuple[int, int, bytes]] | None:
        """The frames that are complete after one read; None when the host has closed the stream."""
        data = posix.read(self.source, 2 * CHUNK)
        if not data:
            return None
        self._received += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> tuple[int, int, bytes] | None:
        if len(self._received) < HEADER.size:
            return None
        kind, channel, length = HEADER.unpack_from(self._received)
        end = HEADER.size + length
        if len(self._received) < end:
            return None
        payload = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return kind, channel, payload

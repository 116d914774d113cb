"""A side of a transfer, whatever carries its frames: windows, ends, and how one side learns of the other's fate.

Each side may send a window ahead of what the other has taken, so what waits anywhere is bounded however
slow a reader is. Frames are numbered: one that is missing is an error, never a shorter file.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from zene.bus.base import IDLE_SECONDS, WINDOW_BYTES
from zene.domain.errors import Unavailable, ZeneError
from zene.domain.faults import Fault, error, fault

FRAME_BYTES = 32 << 10
SILENT_SECONDS = 15.0  # a side that says nothing at all for so long is dead
_TELL_BYTES = WINDOW_BYTES // 4


class Piece(Struct, frozen=True, array_like=True, tag=True):
    """Bytes, numbered from 1 on. `to` names the side that it is for, as in all of these."""

    to: str
    number: int
    content: bytes


class Taken(Struct, frozen=True, array_like=True, tag=True):
    """So many bytes were taken, since the last time this was said."""

    to: str
    size: int


class End(Struct, frozen=True, array_like=True, tag=True):
    """There were so many pieces."""

    to: str
    pieces: int


class Failed(Struct, frozen=True, array_like=True, tag=True):
    """It is over for both."""

    to: str
    fault: Fault


class Alive(Struct, frozen=True, array_like=True, tag=True):
    """The side is still there."""

    to: str


Frame = Piece | Taken | End | Failed | Alive


class Wire(Protocol):
    """What carries frames to the other side."""

    async def clear(self) -> None:
        """Wait until little is on its way."""
        ...

    def post(self, frame: Frame) -> None:
        """Send it, behind those before it."""
        ...


class Side:
    """Implements `bus.base.Transfer`. The other one is called `to`; `forget` is called once, when it is over for this one."""

    def __init__(self, to: str, wire: Wire, forget: Callable[[], object], *, asks: bool) -> None:
        self._to = to
        self._wire = wire
        self._forget = forget
        self._asks = asks
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._failure: ZeneError | None = None
        self._is_closed = False
        self._lost: Callable[[], object] | None = None
        self._pieces: deque[bytes] = deque()
        self._pieces_in = 0
        self._pieces_out = 0
        self._waiting_bytes = 0  # came, and were not taken
        self._untold_bytes = 0  # were taken, which the other side does not know yet
        self._ahead_bytes = 0  # were sent, and are not known to be taken
        self._ended_here = False
        self._ended_there = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def send(self, piece: bytes, seconds: float = IDLE_SECONDS) -> None:
        """As in Transfer."""
        for begin in range(0, len(piece), FRAME_BYTES):
            part = piece[begin : begin + FRAME_BYTES]
            while self._ahead_bytes + len(part) > WINDOW_BYTES:
                await self._wait(self._room, seconds)
            await self._wire.clear()
            self._check()
            self._ahead_bytes += len(part)
            self._pieces_out += 1
            self._wire.post(Piece(self._to, self._pieces_out, part))

    def end(self) -> None:
        """As in Transfer."""
        if self._failure is None and not self._ended_here:
            self._ended_here = True
            self._wire.post(End(self._to, self._pieces_out))

    async def receive(self, seconds: float = IDLE_SECONDS) -> bytes | None:
        """As in Transfer."""
        self._check()
        while not self._pieces:
            if self._ended_there:
                return None
            await self._wait(self._arrived, seconds)
        piece = self._pieces.popleft()
        self._waiting_bytes -= len(piece)
        self._untold_bytes += len(piece)
        if self._untold_bytes >= _TELL_BYTES:
            self._wire.post(Taken(self._to, self._untold_bytes))
            self._untold_bytes = 0
        return piece

    def fail(self, error: ZeneError) -> None:
        """As in Transfer."""
        if self._failure is None and not self._is_over:
            self._set_failed(error)
            self._wire.post(Failed(self._to, fault(error)))

    def when_lost(self, call: Callable[[], object]) -> None:
        """As in Transfer."""
        self._lost = call
        if self._failure is not None:
            call()

    def close(self) -> None:
        """As in Transfer."""
        if self._is_closed:
            return
        self._is_closed = True
        self._lost = None
        self.fail(Unavailable("The other side left before it was done.", retry_after=1))
        self._set_failed(Unavailable("It is closed."))

    def lose(self, error: ZeneError) -> None:
        """The other side cannot be reached any more."""
        if self._failure is None and not self._is_over:
            self._set_failed(error)
            if self._lost is not None:
                self._lost()

    def look(self, now: float) -> None:
        """Say that this side is there, and see whether the other is; to be called every few seconds
        with the loop's time.
        """
        if self._failure is not None or self._is_over:
            return
        if now - self._heard_at > SILENT_SECONDS:
            self.lose(Unavailable("The other side of a transfer fell silent.", retry_after=1))
        else:
            self._wire.post(Alive(self._to))

    def take(self, frame: Frame) -> None:
        """What comes from the other side."""
        self._heard_at = self._loop.time()
        match frame:
            case Piece():
                self._take_piece(frame)
            case Taken():
                self._ahead_bytes -= frame.size
                self._room.set()
            case End():
                self._take_end(frame)
            case Failed():
                self.lose(error(frame.fault))
            case Alive():
                pass

    @property
    def _is_over(self) -> bool:
        """Whether the answer is complete, and the other side of no more use."""
        return self._ended_there if self._asks else self._ended_here

    def _take_piece(self, piece: Piece) -> None:
        self._pieces_in += 1
        self._waiting_bytes += len(piece.content)
        if self._failure is not None:
            return
        if piece.number != self._pieces_in or self._waiting_bytes > WINDOW_BYTES:
            self._break_off()
            return
        self._pieces.append(piece.content)
        self._arrived.set()

    def _take_end(self, end: End) -> None:
        if end.pieces != self._pieces_in:
            self._break_off()
            return
        self._ended_there = True
        self._arrived.set()

    def _break_off(self) -> None:
        broken = Unavailable("A transfer lost bytes on its way.", retry_after=1)
        self.fail(broken)
        if self._lost is not None:
            self._lost()

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        event.clear()
        self._check()
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            expired = Unavailable(
                f"Nothing was transferred for {seconds:g} seconds.", retry_after=1
            )
            self.fail(expired)
            raise expired from None
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _set_failed(self, error: ZeneError) -> None:
        if self._failure is None:
            self._failure = error
            self._forget()
            self._pieces.clear()
            self._arrived.set()
            self._room.set()

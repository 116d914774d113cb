"""The host's end of a runner's stream. Every frame is taken as hostile: bounded, checked, or the end.

A call's output waits here only as far as the window it was granted; what its consumer takes is granted
again, so a slow consumer stops its command and nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from msgspec import Struct

from zene.domain.errors import InvalidInput, SandboxGone
from zene.sandbox.base import Command, Exit, Outcome, Output
from zene.sandbox.runner import frames

MAX_FRAME = frames.CHUNK + 64
_GRANT_AT = frames.WINDOW // 2
_MAX_UINT32 = 0xFFFFFFFF
_MAX_TIMEOUT_SECONDS = 24 * 3600.0
_MAX_START = 1 << 20  # argv, environment and paths of one command
_MAX_TEXTS = 0xFFFF


class Malformed(Exception):
    """The runner sent what no runner sends."""


class Remembered(Struct, frozen=True):
    """The runner's answer to a question about an earlier call."""

    outcome: Outcome | None


Frame = Output | Exit | Remembered


class Call:
    """One channel: frames in order, waiting for their consumer."""

    def __init__(self, client: "Client", channel: int, output_limit: int) -> None:
        self.channel = channel
        self.ended = False
        self._client = client
        self._frames: deque[Frame] = deque()
        self._output_left = output_limit
        self._window = frames.WINDOW
        self._ungranted = 0
        self._stdin_window = frames.STDIN_WINDOW
        self._changed = asyncio.Event()

    async def next(self) -> Frame:
        """The next frame. Raises SandboxGone."""
        while not self._frames:
            self._client.check()
            self._changed.clear()
            await self._changed.wait()
        frame = self._frames.popleft()
        if isinstance(frame, Output):
            self._taken(len(frame.data))
        return frame

    async def feed(self, data: bytes) -> None:
        """Send stdin as fast as the command takes it; what comes after its end is dropped."""
        view = memoryview(data)
        while view and not self.ended:
            self._client.check()
            if self._stdin_window == 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            part = view[: min(self._stdin_window, frames.CHUNK)]
            self._stdin_window -= len(part)
            self._client.send(frames.STDIN, self.channel, bytes(part))
            view = view[len(part) :]

    def end_feed(self) -> None:
        """Close the command's stdin."""
        self._client.send(frames.STDIN, self.channel)

    def kill(self) -> None:
        """End the command and all it began; its Exit follows."""
        self._client.send(frames.KILL, self.channel)

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()

    def put(self, frame: Frame) -> None:
        """Take in what the runner sent. Raises Malformed for more than it may send."""
        if isinstance(frame, Output):
            self._window -= len(frame.data)
            self._output_left -= len(frame.data)
            if not frame.data or self._window < 0 or self._output_left < 0:
                raise Malformed("output that it may not send")
        else:
            self.ended = True
        self._frames.append(frame)
        self.wake()

    def stdin_taken(self, count: int) -> None:
        """The command has read that much of its stdin."""
        self._stdin_window += count
        if self._stdin_window > frames.STDIN_WINDOW:
            raise Malformed("more stdin taken than sent")
        self.wake()

    def _taken(self, count: int) -> None:
        self._ungranted += count
        if self._ungranted >= _GRANT_AT and not self.ended:
            self._client.send(frames.GRANT, self.channel, frames.COUNT.pack(self._ungranted))
            self._window += self._ungranted
            self._ungranted = 0


class Client(asyncio.Protocol):
    """One runner. `on_lost` is called once, when the stream ends or is malformed."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._lost: str | None = None
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._calls: dict[int, Call] = {}
        self._channels = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; the runner has said hello by now."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The runner has ended."""
        self.lose("it ended")

    def data_received(self, data: bytes) -> None:
        """Split the stream into frames."""
        self._received += data
        try:
            self._split()
        except Malformed as err:
            self.lose(f"its runner sent {err}")

    def lose(self, reason: str) -> None:
        """Everything that waits, or comes later, gets SandboxGone."""
        if self._lost is not None:
            return
        self._lost = reason
        if self._transport is not None:
            self._transport.abort()
        for call in self._calls.values():
            call.wake()
        self._on_lost()

    @property
    def is_lost(self) -> bool:
        """Whether the stream has ended."""
        return self._lost is not None

    def check(self) -> None:
        """Raise SandboxGone if the runner is lost."""
        if self._lost is not None:
            raise SandboxGone(f"the sandbox is gone: {self._lost}")

    def send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        """Send one frame; nothing once the runner is lost."""
        if self._transport is not None and self._lost is None:
            self._transport.write(frames.HEADER.pack(kind, channel, len(payload)) + payload)

    def start(self, command: Command, environment: dict[str, str]) -> Call:
        """Send a command off. Raises SandboxGone, and InvalidInput for what no program can be given."""
        self.check()
        payload = _start_payload(command, environment)
        call = self._open(command.output_limit)
        self.send(frames.START, call.channel, payload)
        return call

    def ask(self, call_id: str) -> Call:
        """Ask for the outcome of an earlier call; the answer is the call's only frame."""
        self.check()
        call = self._open(0)
        self.send(frames.ASK, call.channel, _encoded(call_id))
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for the call's frames any more; it has ended."""
        self._calls.pop(call.channel, None)

    def _open(self, output_limit: int) -> Call:
        self._channels += 1
        call = self._calls[self._channels] = Call(self, self._channels, output_limit)
        return call

    def _split(self) -> None:
        header = frames.HEADER
        at = 0
        while self._lost is None and len(self._received) - at >= header.size:
            kind, channel, length = header.unpack_from(self._received, at)
            if length > MAX_FRAME:
                raise Malformed("a frame over the limit")
            end = at + header.size + length
            if len(self._received) < end:
                break
            self._take(kind, channel, bytes(self._received[at + header.size : end]))
            at = end
        del self._received[:at]

    def _take(self, kind: int, channel: int, payload: bytes) -> None:
        call = self._calls.get(channel)
        if call is None or call.ended:
            raise Malformed("a frame of no call")
        match kind:
            case frames.STDOUT | frames.STDERR:
                call.put(Output(1 if kind == frames.STDOUT else 2, payload))
            case frames.EXIT:
                call.put(_exit(payload))
            case frames.OUTCOME:
                call.put(_remembered(payload))
            case frames.TAKEN if len(payload) == frames.COUNT.size:
                call.stdin_taken(frames.COUNT.unpack(payload)[0])
            case _:
                raise Malformed("an unknown frame")


def _start_payload(command: Command, environment: dict[str, str]) -> bytes:
    env = [f"{key}={value}" for key, value in environment.items()]
    flags = (frames.SPLIT if command.split else 0) | (frames.HAS_STDIN if command.stdin else 0)
    texts = [command.call_id or "", command.cwd, *command.argv, *env]
    if not command.argv or any("\0" in text for text in texts):
        raise InvalidInput("a command needs a program, and no NUL character anywhere")
    encoded = _encoded("\0".join(texts))
    if len(encoded) > _MAX_START or len(texts) > _MAX_TEXTS:
        raise InvalidInput("the command is too long: 1 MiB of arguments and environment at most")
    timeout_ms = int(min(max(command.timeout_seconds, 0.001), _MAX_TIMEOUT_SECONDS) * 1000)
    limit = min(command.output_limit, _MAX_UINT32)
    fields = frames.START_FIELDS.pack(timeout_ms, limit, len(command.argv), len(env), flags)
    return fields + encoded


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _exit(payload: bytes) -> Exit:
    if len(payload) != frames.EXIT_FIELDS.size:
        raise Malformed("a broken exit")
    code, duration_ms, dropped, flags = frames.EXIT_FIELDS.unpack(payload)
    if not -64 <= code <= 255:
        raise Malformed("an impossible exit code")
    timed_out = bool(flags & frames.TIMED_OUT)
    return Exit(code=code, duration_ms=duration_ms, dropped_bytes=dropped, timed_out=timed_out)


def _remembered(payload: bytes) -> Remembered:
    if not payload:
        return Remembered(None)
    size = frames.EXIT_FIELDS.size
    return Remembered(Outcome(exit=_exit(payload[:size]), output=payload[size:]))

"""Whatever a runner sends is bounded and checked, or the end of it."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zene.domain.errors import SandboxGone
from zene.sandbox.base import Command, Exit, Output
from zene.sandbox.client import MAX_FRAME, Call, Client
from zene.sandbox.runner import frames

EXIT = frames.EXIT_FIELDS.pack(0, 5, 0, 0)


class Runner(asyncio.Transport):
    """The other end: it takes what the client writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.aborted = False
        self.lost = 0
        self.client = Client(self.on_lost)
        self.client.connection_made(self)

    def on_lost(self) -> None:
        self.lost += 1

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def sends(self, kind: int, channel: int, payload: bytes = b"") -> None:
        self.client.data_received(frames.HEADER.pack(kind, channel, len(payload)) + payload)

    def started(self, limit: int = 1 << 20) -> Call:
        return self.client.start(Command(argv=("x",), output_limit=limit), {})


async def test_frames_may_come_in_any_pieces() -> None:
    runner = Runner()
    call = runner.started()
    stream = frames.HEADER.pack(frames.STDOUT, call.channel, 5) + b"hello"
    stream += frames.HEADER.pack(frames.EXIT, call.channel, len(EXIT)) + EXIT
    for byte in stream:
        runner.client.data_received(bytes([byte]))
    assert await call.next() == Output(1, b"hello")
    assert await call.next() == Exit(code=0, duration_ms=5)


ONLY = 1  # the channel of a client's first call
HOSTILE = {
    "an unknown kind": [(99, ONLY, b"")],
    "an unknown call": [(frames.STDOUT, 77, b"x")],
    "a second hello": [(frames.HELLO, 0, b"")],
    "a frame over the limit": [(frames.STDOUT, ONLY, bytes(MAX_FRAME + 1))],
    "an empty output": [(frames.STDOUT, ONLY, b"")],
    "a short exit": [(frames.EXIT, ONLY, b"x")],
    "an impossible code": [(frames.EXIT, ONLY, frames.EXIT_FIELDS.pack(256, 0, 0, 0))],
    "an impossible signal": [(frames.EXIT, ONLY, frames.EXIT_FIELDS.pack(-65, 0, 0, 0))],
    "more stdin taken than sent": [(frames.TAKEN, ONLY, frames.COUNT.pack(1))],
    "a broken count": [(frames.TAKEN, ONLY, b"x")],
    "a broken outcome": [(frames.OUTCOME, ONLY, b"x")],
    "output after the exit": [(frames.EXIT, ONLY, EXIT), (frames.STDOUT, ONLY, b"x")],
    "a second exit": [(frames.EXIT, ONLY, EXIT), (frames.EXIT, ONLY, EXIT)],
}


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
async def test_what_no_runner_sends_ends_the_sandbox(attack: list[tuple[int, int, bytes]]) -> None:
    runner = Runner()
    runner.started()
    for kind, channel, payload in attack:
        runner.sends(kind, channel, payload)
    assert (runner.lost, runner.aborted) == (1, True)
    with pytest.raises(SandboxGone):
        runner.started()


async def test_more_than_the_window_ends_the_sandbox() -> None:
    runner = Runner()
    call = runner.started(limit=1 << 30)
    for _ in range(frames.WINDOW // frames.CHUNK):
        runner.sends(frames.STDOUT, call.channel, bytes(frames.CHUNK))
    assert runner.lost == 0
    runner.sends(frames.STDOUT, call.channel, b"x")
    assert runner.lost == 1


async def test_more_than_the_output_limit_ends_the_sandbox() -> None:
    runner = Runner()
    call = runner.started(limit=10)
    runner.sends(frames.STDOUT, call.channel, bytes(10))
    assert runner.lost == 0
    runner.sends(frames.STDOUT, call.channel, b"x")
    assert runner.lost == 1


async def test_what_is_taken_is_granted_again() -> None:
    runner = Runner()
    call = runner.started(limit=1 << 30)
    for _ in range(20):
        runner.sends(frames.STDOUT, call.channel, bytes(frames.CHUNK))
        await call.next()
    assert runner.lost == 0


async def test_who_waits_when_the_runner_ends_is_told() -> None:
    runner = Runner()
    call = runner.started()
    waiting = asyncio.create_task(call.next())
    await asyncio.sleep(0)
    runner.client.connection_lost(None)
    with pytest.raises(SandboxGone):
        await waiting


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(0, 3))
def test_no_bytes_at_all_can_raise_or_pile_up(chunks: list[bytes], prefix: int) -> None:
    runner = Runner()
    call = runner.started()
    for chunk in chunks:
        runner.client.data_received(bytes([prefix, call.channel, 0, 0, 0]) + chunk)
    if runner.lost:
        with pytest.raises(SandboxGone):
            runner.client.check()

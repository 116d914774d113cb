"""A side of a transfer by itself: what it says, and what it makes of frames that should not have come."""

import asyncio

import pytest

from zene.bus.base import WINDOW_BYTES
from zene.bus.sides import SILENT_SECONDS, Alive, End, Failed, Frame, Piece, Side
from zene.domain.errors import NotFound, Unavailable
from zene.domain.faults import fault


class Said:
    """A wire that goes nowhere."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    async def clear(self) -> None:
        """Nothing is on its way."""

    def post(self, frame: Frame) -> None:
        self.frames.append(frame)


@pytest.fixture
async def said() -> Said:
    return Said()


@pytest.fixture
async def side(said: Said) -> Side:
    return Side("other", said, lambda: None, asks=True)


@pytest.mark.parametrize(
    "frames",
    [
        [Piece("me", 2, b"b")],
        [Piece("me", 1, b"a"), Piece("me", 3, b"c")],
        [Piece("me", 1, b"a"), Piece("me", 1, b"a")],
        [Piece("me", 1, b"a"), End("me", 2)],
        [End("me", 1)],
        [Piece("me", 1, b"x" * WINDOW_BYTES), Piece("me", 2, b"x")],
    ],
    ids=["first lost", "middle lost", "twice", "last lost", "all lost", "more than allowed"],
)
async def test_bytes_that_are_missing_or_too_many_are_an_error_on_both_sides(
    side: Side, said: Said, frames: list[Frame]
) -> None:
    lost = asyncio.Event()
    side.when_lost(lost.set)
    for frame in frames:
        side.take(frame)
    with pytest.raises(Unavailable, match="lost bytes"):
        await side.receive()
    [told] = said.frames
    assert isinstance(told, Failed)
    assert told.fault.kind == "Unavailable"
    assert lost.is_set()


async def test_a_side_that_is_silent_is_given_up_and_one_that_is_idle_is_not(
    side: Side, said: Said
) -> None:
    now = asyncio.get_running_loop().time()
    side.look(now + SILENT_SECONDS - 1)
    assert said.frames == [Alive("other")]
    side.take(Alive("me"))
    side.look(now + SILENT_SECONDS - 0.5)
    side.look(now + 2 * SILENT_SECONDS)
    with pytest.raises(Unavailable, match="silent"):
        await side.receive()


async def test_one_that_has_all_of_the_answer_needs_the_other_no_more(
    side: Side, said: Said
) -> None:
    side.take(Piece("me", 1, b"all"))
    side.take(End("me", 1))
    side.take(Failed("me", fault(Unavailable("stopping"))))
    side.look(asyncio.get_running_loop().time() + 2 * SILENT_SECONDS)
    assert await side.receive() == b"all"
    assert await side.receive() is None
    side.close()
    side.close()
    assert said.frames == []


async def test_an_error_takes_the_place_of_what_was_not_read(side: Side) -> None:
    side.take(Piece("me", 1, b"half"))
    side.take(Failed("me", fault(NotFound("gone"))))
    with pytest.raises(NotFound, match="gone"):
        await side.receive()


async def test_who_asks_too_late_whether_it_is_lost_is_told_at_once(side: Side) -> None:
    side.take(Failed("me", fault(NotFound("gone"))))
    lost = asyncio.Event()
    side.when_lost(lost.set)
    assert lost.is_set()

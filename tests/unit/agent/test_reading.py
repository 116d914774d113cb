"""Deltas: followers who put them together have exactly the text of the item, whatever the pieces were."""

from itertools import accumulate
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.local import LocalBench, LocalOperations
from tests.record import Record
from zene.agent.conversation import Conversation
from zene.agent.reading import Reading
from zene.domain.messages import Message
from zene.llm.base import Delta, PartDone

PIECES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20)


@given(PIECES, st.lists(st.integers(0, 10), min_size=20, max_size=20))
def test_what_is_shown_is_the_text_so_far(pieces: list[str], pauses: list[int]) -> None:
    ops = LocalOperations(LocalBench(Path("nowhere")))
    talk = Conversation(Record().situation())
    reading = Reading(talk, ops)
    for piece, so_far, pause in zip(pieces, accumulate(pieces), pauses, strict=False):
        ops.pass_time(pause)
        if reading.take(Delta(0, "message", piece)):
            assert ops.shown == {}, "nothing is shown of an item before it is known"
            talk.batch()
            reading.show()
        assert list(ops.shown.values()) in ([], [so_far])
    reading.take(PartDone(0, Message("".join(pieces))))
    assert reading.parts[0].text == "".join(pieces)

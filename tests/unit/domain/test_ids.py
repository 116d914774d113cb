"""Ids sort in the order in which they were made, whatever the clock and the dice do."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from zene.domain.ids import Ids, is_id, make_id

CLOCKS = st.lists(st.integers(1_800_000_000_000, 1_800_000_000_002), min_size=1, max_size=50)
DICE = st.sampled_from([b"\x00" * 10, b"\x07" * 10, b"\xff" * 10])


@given(CLOCKS, st.data())
def test_an_id_sorts_after_those_made_before_it(clocks: Sequence[int], dice: st.DataObject) -> None:
    times = iter(clocks)
    ids = Ids(lambda: next(times), lambda size: dice.draw(DICE)[:size])
    made = [ids.new("ses") for _ in clocks]
    assert made == sorted(set(made))
    assert all(is_id(each, "ses") for each in made)


def test_an_id_says_when_it_was_made() -> None:
    ids = Ids(lambda: 1_800_000_000_000, lambda size: b"\x01" * size)
    assert ids.new("ses") == make_id("ses", 1_800_000_000_000, b"\x01" * 10)

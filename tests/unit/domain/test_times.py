"""Times: what is written is what is read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zene.domain.times import milliseconds, rfc3339


@given(st.integers(0, 253_402_300_799_999))
def test_every_moment_comes_back(ms: int) -> None:
    text = rfc3339(ms)
    assert milliseconds(text) == ms
    assert len(text) == len("2026-01-31T08:15:00.250Z")


def test_texts_sort_as_their_moments() -> None:
    assert rfc3339(999) < rfc3339(1000) < rfc3339(60_000)
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_an_offset_is_taken_into_account() -> None:
    assert milliseconds("1970-01-01T01:00:00+01:00") == 0


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        milliseconds("1970-01-01T00:00:00")


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-86_400_000, "1969-12-31T00:00:00.000Z"),
        (4_294_967_296_000, "2106-02-07T06:28:16.000Z"),
        (10**20, "9999-12-31T23:59:59.999Z"),
        (-(10**20), "1000-01-01T00:00:00.000Z"),
    ],
)
def test_times_that_an_agent_may_set_are_shown_as_well_as_can_be(ms: int, shown: str) -> None:
    assert rfc3339(ms) == shown

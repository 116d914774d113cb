"""Token buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zene.domain.errors import TooMany
from zene.gateway.rates import Rate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_and_then_a_rate() -> None:
    clock = Clock()
    rate = Rate(clock, per_second=2, burst=3)
    for _ in range(3):
        rate.take("me")
    with pytest.raises(TooMany) as caught:
        rate.take("me")
    assert caught.value.retry_after == 0.5
    clock.now += 0.5
    rate.take("me")


def test_one_callers_requests_do_not_count_for_another() -> None:
    rate = Rate(Clock(), per_second=1, burst=1)
    rate.take("me")
    rate.take("you")


@given(st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_burst_and_rate_allow(gaps: list[float]) -> None:
    clock = Clock()
    rate = Rate(clock, per_second=2, burst=5)
    allowed = 0
    for gap in gaps:
        clock.now += gap
        try:
            rate.take("me")
        except TooMany:
            continue
        allowed += 1
    assert allowed <= 5 + 2 * clock.now + 1e-6

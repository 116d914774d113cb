import gc
import weakref
from collections.abc import Iterator

import pytest

from zene.cli import garbage


class Knot(list["Knot"]):
    """Garbage once nobody else has it: only the collector can find that."""

    def __init__(self) -> None:
        super().__init__()
        self.append(self)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.enable()
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_a_start_is_not_stopped_to_look_for_garbage() -> None:
    garbage.starting()
    knots = [weakref.ref(Knot()) for _ in range(10_000)]
    assert all(knot() is not None for knot in knots)


def test_what_comes_after_the_start_is_collected() -> None:
    garbage.starting()
    kept = weakref.ref(Knot())
    garbage.started()
    knots = [weakref.ref(Knot()) for _ in range(100_000)]
    assert sum(knot() is not None for knot in knots) < 50_000
    gc.collect()
    assert kept() is not None
    assert not any(knot() is not None for knot in knots)

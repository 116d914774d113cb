"""The figures as a table: medians of the rounds, and what each must be and aims at."""

import statistics
from collections.abc import Mapping, Sequence

from msgspec import Struct

Values = Mapping[str, float]  # seconds, bytes, or a number a second


class Figure(Struct, frozen=True, kw_only=True):
    """A row. How many samples a round had is in its values under the key's first word and ` n`."""

    key: str
    label: str
    unit: str
    must: float | None = None
    aim: float | None = None
    more_is_better: bool = False

    def holds(self, value: float, bound: float) -> bool:
        """Whether a value is as the bound wants it; the value is in the unit."""
        return value >= bound if self.more_is_better else value <= bound


_SIZES = {"ms": 1e-3, "µs": 1e-6, "kB": 1e3, "k/s": 1e3}
_HEAD = "| | Zene | n | must | aims at | |"
_RULE = "|---|---:|---:|---:|---:|---|"


def table(figures: Sequence[Figure], rounds: Sequence[Values]) -> str:
    """The table of what was measured in these rounds."""
    measured = [each for each in figures if any(each.key in values for values in rounds)]
    return "\n".join([_HEAD, _RULE, *(_row(figure, rounds) for figure in measured)])


def _row(figure: Figure, rounds: Sequence[Values]) -> str:
    values = [each[figure.key] for each in rounds if figure.key in each]
    value = statistics.median(values) / _SIZES.get(figure.unit, 1)
    samples = [each.get(f"{figure.key.split()[0]} n", 1) for each in rounds if figure.key in each]
    cells = (
        figure.label,
        f"{_number(value)} {figure.unit}".strip(),
        f"{sum(samples):.0f}",
        _bound(figure, figure.must),
        _bound(figure, figure.aim),
        _verdict(figure, value),
    )
    return f"| {' | '.join(cells)} |"


def _bound(figure: Figure, bound: float | None) -> str:
    sign = "≥" if figure.more_is_better else "≤"
    return "" if bound is None else f"{sign} {bound:g} {figure.unit}"


def _verdict(figure: Figure, value: float) -> str:
    if figure.must is None:
        return ""
    if not figure.holds(value, figure.must):
        return "**missed**"
    return "reached" if figure.holds(value, figure.aim or figure.must) else "as it must be"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

"""The figures as a table: medians, the ratio of each round, and what Zene must reach and aims at."""

import statistics
from collections.abc import Sequence

from msgspec import Struct

from benchmarks.rounds import SESSIONS_AT_ONCE, Round
from benchmarks.scenario import TOKENS


class Figure(Struct, frozen=True, kw_only=True):
    """A row. `must` and `aim` hold for the ratio, or for the value where the bare loop has none like it."""

    key: str
    label: str
    unit: str
    must: float | None = None
    aim: float | None = None
    is_ratio: bool = True
    is_rate: bool = False  # more is better

    @property
    def size(self) -> float:
        """What the unit is a multiple of."""
        return {"MB": 1e6, "kB": 1e3}.get(self.unit, 1)


FIGURES = (
    Figure(key="start", label="start to ready", unit="ms", must=5, aim=2),
    Figure(key="first start", label="the same, the very first with its set-up", unit="ms"),
    Figure(key="idle memory", label="idle memory", unit="MB", must=90, aim=60, is_ratio=False),
    Figure(key="task", label="task of 10 tool turns, wall", unit="ms", must=1.5, aim=0.7),
    Figure(key="task CPU", label="CPU for it, sandbox included", unit="ms", must=1.5, aim=0.7),
    Figure(
        key="task of programs",
        label="the same with `python3 -c` for `true`, wall",
        unit="ms",
        must=1.5,
        aim=0.7,
    ),
    Figure(key="task CPU of programs", label="CPU for it", unit="ms", must=1.5, aim=0.7),
    Figure(key="warm task", label="the same task where the sandbox runs, wall", unit="ms"),
    Figure(key="warm task CPU", label="CPU for it", unit="ms"),
    Figure(key="first output", label="submit → first model output", unit="ms", must=4, aim=2),
    Figure(
        key="at once",
        label=f"{SESSIONS_AT_ONCE} such tasks at once, tasks a second",
        unit="/s",
        must=0.8,
        aim=1.5,
        is_rate=True,
    ),
    Figure(key="at once CPU", label="CPU for each of them", unit="ms"),
    Figure(key="stream CPU", label=f"{TOKENS} streamed tokens, CPU", unit="ms", must=2, aim=1.2),
    Figure(
        key="idle session",
        label="memory per idle session",
        unit="kB",
        must=20,
        aim=5,
        is_ratio=False,
    ),
    Figure(
        key="first request",
        label="first request to the model",
        unit="kB",
        must=12,
        aim=6,
        is_ratio=False,
    ),
    Figure(key="all requests", label="all 11", unit="kB", must=150, aim=100, is_ratio=False),
)

_HEAD = "| | Zene | bare loop | ratio | n | must | aims at | |"
_RULE = "|---|---:|---:|---:|---:|---:|---:|---|"


def markdown(rounds: Sequence[Round]) -> str:
    """The table of these rounds."""
    return "\n".join([_HEAD, _RULE, *(_row(figure, rounds) for figure in FIGURES)])


def _row(figure: Figure, rounds: Sequence[Round]) -> str:
    key = figure.key
    zene = statistics.median(each.zene[key] for each in rounds)
    has_peer = all(key in each.bare for each in rounds)
    bare = statistics.median(each.bare[key] for each in rounds) if has_peer else None
    ratio = (
        statistics.median(each.zene[key] / each.bare[key] for each in rounds) if has_peer else None
    )
    cells = (
        figure.label,
        _value(figure, zene),
        _value(figure, bare),
        _times(ratio),
        str(len(rounds)),
        _bound(figure, figure.must),
        _bound(figure, figure.aim),
        _verdict(figure, ratio if figure.is_ratio else zene / figure.size),
    )
    return f"| {' | '.join(cells)} |"


def _value(figure: Figure, value: float | None) -> str:
    return "–" if value is None else f"{_number(value / figure.size)} {figure.unit}"


def _bound(figure: Figure, bound: float | None) -> str:
    if bound is None:
        return ""
    sign = "≥" if figure.is_rate else "≤"
    return f"{sign} {bound:g}×" if figure.is_ratio else f"{sign} {bound:g} {figure.unit}"


def _verdict(figure: Figure, value: float | None) -> str:
    """How far the value comes."""
    if figure.must is None or figure.aim is None or value is None:
        return ""
    if _holds(figure, value, figure.aim):
        return "reached"
    return "as it must be" if _holds(figure, value, figure.must) else "**missed**"


def _holds(figure: Figure, value: float, bound: float) -> bool:
    return value >= bound if figure.is_rate else value <= bound


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{_number(ratio)}×"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

"""Metrics: what a process counts of itself, in the text format of Prometheus.

A registry of our own: importing prometheus-client takes 35 ms, a quarter of what a start may take, and
its labelled counters 3 µs. What labels hold comes from the code or the settings, never from a user, a
session or a task; past `MOST_SERIES` of a metric the rest counts as `other`, so that nobody can fill the
memory of those who collect them.
"""

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Literal, TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_SERIES = 1000
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Labels = tuple[str, ...]
Look = Callable[[], Awaitable[None]]
M = TypeVar("M", "Counter", "Gauge", "Histogram")


class Registry:
    """The metrics of a process. Instruments are made once, each name once; a second raises ValueError."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        self._looks: list[Look] = []

    def counter(self, name: str, told: str, *labels: str) -> "Counter":
        """What only grows."""
        return self._with(Counter(name, told, labels))

    def gauge(self, name: str, told: str, *labels: str) -> "Gauge":
        """What goes up and down."""
        return self._with(Gauge(name, told, labels))

    def histogram(self, name: str, told: str, *labels: str) -> "Histogram":
        """How long something takes, in seconds."""
        return self._with(Histogram(name, told, labels))

    def before_reading(self, look: Look) -> None:
        """Have `look` set its gauges each time before the metrics are read. It raises nothing, and soon ends."""
        self._looks.append(look)

    @property
    def metrics(self) -> "Sequence[Counter | Gauge | Histogram]":
        """All of them, by name."""
        return [self._metrics[name] for name in sorted(self._metrics)]

    async def read(self) -> str:
        """All metrics as they are now."""
        for look in self._looks:
            await look()
        lines: list[str] = []
        for metric in self.metrics:
            lines.append(f"# HELP {metric.name} {_escaped(metric.told)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        return "".join(f"{line}\n" for line in lines)

    def _with(self, metric: M) -> M:
        if metric.name in self._metrics:
            message = f"There is a metric {metric.name} already."
            raise ValueError(message)
        self._metrics[metric.name] = metric
        return metric


class Counter:
    """Grows from 0. One without labels is shown before it has been counted, too."""

    kind: Literal["counter"] = "counter"

    def __init__(self, name: str, told: str, labels: Labels) -> None:
        self.name, self.told, self.labels = name, told, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def count(self, *values: str, by: float = 1) -> None:
        """Count one more, or `by`, of these labels' values."""
        values = _kept(values, self._values)
        self._values[values] = self._values.get(values, 0) + by

    def lines(self) -> Iterator[str]:
        """One line for each combination of labels that was counted."""
        for values, number in self._values.items():
            yield f"{self.name}{_braces(self.labels, values)} {_number(number)}"


class Gauge:
    """A value as it is now, told by `set`, or asked for by `ask` when the metrics are read."""

    kind: Literal["gauge"] = "gauge"

    def __init__(self, name: str, told: str, labels: Labels) -> None:
        self.name, self.told, self.labels = name, told, labels
        self._values: dict[Labels, float] = {}
        self._asked: Callable[[], float] | None = None

    def set(self, number: float, *values: str) -> None:
        """This is its value."""
        self._values[_kept(values, self._values)] = number

    def ask(self, asked: Callable[[], float]) -> None:
        """Whoever reads the metrics gets what `asked` says then; only for one without labels."""
        self._asked = asked

    def clear(self) -> None:
        """Nothing is known of it."""
        self._values.clear()

    def lines(self) -> Iterator[str]:
        """One line for each combination of labels that has a value."""
        if self._asked is not None:
            self.set(self._asked())
        for values, number in self._values.items():
            yield f"{self.name}{_braces(self.labels, values)} {_number(number)}"


class Histogram:
    """Seconds, in buckets of `SECONDS`."""

    kind: Literal["histogram"] = "histogram"

    def __init__(self, name: str, told: str, labels: Labels) -> None:
        self.name, self.told, self.labels = name, told, labels
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        if not labels:
            self._begin(())

    def observe(self, seconds: float, *values: str) -> None:
        """It took so long."""
        values = _kept(values, self._counts)
        if values not in self._counts:
            self._begin(values)
        self._counts[values][bisect_left(SECONDS, seconds)] += 1
        self._sums[values] += seconds

    @contextmanager
    def timed(self, *values: str) -> Iterator[None]:
        """Observe how long the block takes, whether it fails or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.observe(time.monotonic() - began, *values)

    def lines(self) -> Iterator[str]:
        """The buckets of each combination of labels, its sum and its count."""
        labels = (*self.labels, "le")
        for values, counts in self._counts.items():
            for limit, number in zip((*SECONDS, "+Inf"), accumulate(counts), strict=True):
                yield f"{self.name}_bucket{_braces(labels, (*values, str(limit)))} {number}"
            braces = _braces(self.labels, values)
            yield f"{self.name}_sum{braces} {_number(self._sums[values])}"
            yield f"{self.name}_count{braces} {sum(counts)}"

    def _begin(self, values: Labels) -> None:
        self._counts[values] = [0] * (len(SECONDS) + 1)
        self._sums[values] = 0.0


def _kept(values: Labels, known: dict[Labels, Any]) -> Labels:
    """The labels' values, or `other` for each where there are too many already."""
    if values in known or len(known) < MOST_SERIES:
        return values
    return ("other",) * len(values)


def _braces(labels: Labels, values: Labels) -> str:
    if not labels:
        return ""
    pairs = zip(labels, values, strict=True)
    inside = ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in pairs)
    return f"{{{inside}}}"


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)

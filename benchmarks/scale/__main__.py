"""`python -m benchmarks.scale`: what many processes carry on PostgreSQL and Redis, against the figures Zene must reach.

PostgreSQL, Redis, gateways, workers and the model server are processes of their own, on loopback, in a
temporary folder. All of them share this machine's cores, so CPU time is told beside the wall's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.__main__ import machine
from benchmarks.scale import lists, streams, tasks
from benchmarks.scale.figures import Figure, Values, table
from benchmarks.scale.place import Place, place
from benchmarks.scenario import model_server
from benchmarks.store import PLACES, batches, measured, prepare

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- scale -->", "<!-- end of scale -->"

Measure = Callable[[Place, bool], Awaitable[Values]]


async def starts(where: Place, quick: bool) -> Values:  # noqa: FBT001 - as all of them
    """From 202 to `task.started`."""
    return await tasks.starts(where, 100 if quick else 500)


async def rate(where: Place, quick: bool) -> Values:  # noqa: FBT001
    """Tasks a second."""
    return await tasks.rate(where, 1000 if quick else 2000)


async def recovery(where: Place, quick: bool) -> Values:  # noqa: FBT001
    """After a kill."""
    return await tasks.recovery(where, 1 if quick else 3)


async def live(where: Place, quick: bool) -> Values:  # noqa: FBT001
    """Live events."""
    return await streams.live(where, (5_000, 10_000, 20_000), 2 if quick else 5)


async def memory(where: Place, quick: bool) -> Values:  # noqa: FBT001
    """Open streams."""
    return await streams.memory(where, 5 if quick else 20)


async def replay(where: Place, quick: bool) -> Values:  # noqa: FBT001
    """A long log."""
    return await streams.replay(where, 5 if quick else 20, 10_000)


async def postgres_list(where: Place, quick: bool) -> Values:  # noqa: FBT001
    """A full store."""
    return await lists.on_postgres(where, 100 if quick else 300, 10_000)


async def sqlite_list(folder: Path, quick: bool) -> Values:  # noqa: FBT001
    """The same on SQLite."""
    return await lists.on_sqlite(folder, 100 if quick else 300, 10_000, 10_000)


async def append(_: Path, quick: bool) -> Values:  # noqa: FBT001
    """Batches of a hundred events, as `benchmarks.store` appends them."""
    values: dict[str, float] = {}
    for name, opened in PLACES.items():
        with opened() as store:
            await store.migrate()
            await store.write(prepare)
            work = partial(batches, store, 25)
            rate, cost = await measured(20_000, work, rounds=2 if quick else 5)
            await store.close()
        values |= {f"{name}-append": rate, f"{name}-append CPU": cost}
    return values


ALONE: dict[str, Callable[[Path, bool], Awaitable[Values]]] = {
    "append": append,
    "sqlite-list": sqlite_list,
}
MEASURES: dict[str, Measure] = {
    "start": starts,
    "rate": rate,
    "recovery": recovery,
    "live": live,
    "memory": memory,
    "replay": replay,
    "list": postgres_list,
}
_LIST = "list of a user's sessions, 10 000 of them with 1 M events"
NAMES = (*MEASURES, *ALONE)
FIGURES = (
    Figure(
        key="start p50",
        label="202 received → `task.started` committed, p50",
        unit="ms",
        must=5,
        aim=2,
    ),
    Figure(key="start p99", label="the same, p99", unit="ms", must=12, aim=5),
    Figure(
        key="start seen p50",
        label="202 received → a follower is told, p50",
        unit="ms",
    ),
    Figure(key="start seen p99", label="the same, p99", unit="ms"),
    Figure(
        key="rate",
        label="tasks a second without a model call, one worker of 64 slots",
        unit="/s",
        must=500,
        aim=1500,
        more_is_better=True,
    ),
    Figure(key="rate CPU", label="the worker's CPU for one", unit="ms"),
    Figure(key="rate PostgreSQL CPU", label="PostgreSQL's CPU for one", unit="ms"),
    Figure(
        key="recovery",
        label="8 tasks of a worker killed with -9 have started elsewhere, lease of 5 s",
        unit="s",
        must=7,
        aim=2,
    ),
    Figure(key="recovery worst", label="the same, the slowest", unit="s"),
    Figure(
        key="live CPU",
        label="gateway, Redis → 1 000 streams at 20 000 events/s: its CPU for an event",
        unit="µs",
        must=26,
        aim=16,
    ),
    Figure(key="live p99", label="the same, p99 from publisher to reader", unit="ms", must=10),
    Figure(key="live arrived", label="the same, events that arrived", unit="%"),
    Figure(key="live 10000 CPU", label="at 10 000 events/s, CPU", unit="µs"),
    Figure(key="live 10000 p99", label="the same, p99", unit="ms"),
    Figure(key="live 5000 CPU", label="at 5 000 events/s, CPU", unit="µs"),
    Figure(key="live 5000 p99", label="the same, p99", unit="ms"),
    Figure(key="memory", label="memory for an open stream", unit="kB", must=20),
    Figure(key="replay", label="replay of 10 000 events, PostgreSQL", unit="ms", must=150),
    Figure(key="replay worst", label="the same, the slowest", unit="ms"),
    Figure(key="SQLite-replay", label="replay of 10 000 events, SQLite", unit="ms", must=150),
    Figure(key="SQLite-replay worst", label="the same, the slowest", unit="ms"),
    Figure(key="list p99", label=f"{_LIST}, PostgreSQL, p99", unit="ms", must=20),
    Figure(key="list p50", label="the same, p50", unit="ms"),
    Figure(key="SQLite-list p99", label=f"{_LIST}, SQLite, p99", unit="ms", must=20),
    Figure(key="SQLite-list p50", label="the same, p50", unit="ms"),
    Figure(
        key="postgres-append",
        label="events appended in batches of 100, PostgreSQL",
        unit="k/s",
        must=50,
        more_is_better=True,
    ),
    Figure(key="postgres-append CPU", label="the worker's CPU for an event", unit="µs"),
    Figure(
        key="sqlite-append",
        label="events appended in batches of 100, SQLite",
        unit="k/s",
        must=25,
        more_is_better=True,
    ),
    Figure(key="sqlite-append CPU", label="the CPU for an event", unit="µs"),
)


def main() -> None:
    """Measure, print, and keep the table where asked to."""
    options = _parsed()
    rounds = uvloop.run(_rounds(options))
    report = f"{machine()}.\n\n{table(FIGURES, rounds)}"
    print(report)
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        README.write_text(f"{before}{BEGIN}\n{report}\n{END}{after}")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"some of: {', '.join(NAMES)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured")
    parser.add_argument("--quick", action="store_true", help="one round, with fewer samples")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {README.name}")
    return parser.parse_args()


async def _rounds(options: argparse.Namespace) -> Sequence[Values]:
    names = [name for name in NAMES if not options.only or name in options.only]
    done = []
    with tempfile.TemporaryDirectory(prefix="zene-scale-") as folder:
        async with model_server(Path(folder)) as model_url:
            for number in range(1 if options.quick else options.rounds):
                values: dict[str, float] = {}
                for name in names:
                    values |= await _measured(
                        name, Path(folder, f"{name}-{number}"), model_url, quick=options.quick
                    )
                done.append(values)
    return done


async def _measured(name: str, folder: Path, model_url: str, *, quick: bool) -> Values:
    """One measure, in an installation of its own."""
    began = time.monotonic()
    if name in ALONE:
        values = await ALONE[name](folder, quick)
    else:
        async with place(folder, model_url) as where:
            values = await MEASURES[name](where, quick)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return values


if __name__ == "__main__":
    main()

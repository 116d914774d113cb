"""What an event costs on Redis: `python -m benchmarks.bus`. CPU of one process, in microseconds an event.

A Redis of its own, and one process each for what is measured, what publishes and what reads: `publish` is
the worker's side, `follow` the gateway's subscription alone, `stream` a whole gateway with a viewer for each
session over HTTP. Latency is from the call of `publish` to the reader.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvloop

from benchmarks.processes import ROOT
from tests.gateway import PASSWORD, email, running
from tests.redis_server import redis_server
from zene.bus.base import Bus, Live
from zene.seams import backend

if TYPE_CHECKING:
    from zene.client import AsyncClient

INSTALLATION = "bench"
TEXT = "x" * 120
BODY = (
    '{"seq":%d,"sent_ns":%d,"type":"item.delta","data":{"item_id":"itm_1","offset":0,"text":"%s"}}'
)
SLICE_SECONDS = 0.01  # how evenly the publisher spreads its events
SENT = b'"sent_ns":'


async def main(options: argparse.Namespace) -> None:
    """Print one line a figure, medians of the rounds."""
    with tempfile.TemporaryDirectory(prefix="zene-bench-") as name:
        async with redis_server(Path(name)) as redis:
            costs = [await publishing(redis.url, options) for _ in range(options.rounds)]
            show("publish, as fast as it goes", costs)
            for rate in options.rates:
                costs = [await following(redis.url, options, rate) for _ in range(options.rounds)]
                show(f"follow at {rate} events/s", costs)
                costs = [
                    await streaming(Path(name, f"{rate}-{n}"), redis.url, options, rate)
                    for n in range(options.rounds)
                ]
                show(f"stream at {rate} events/s", costs)


def show(name: str, rounds: Sequence[dict[str, float]]) -> None:
    """One line: the median of each figure."""
    figures = (f"{key} {statistics.median(r[key] for r in rounds):.4g}" for key in rounds[0])
    print(f"{name:32} {', '.join(figures)}, n={len(rounds)}", flush=True)


async def publishing(url: str, options: argparse.Namespace) -> dict[str, float]:
    """One message an event, over the sessions in turn; Redis has taken all when the clock stops."""
    async with started(url) as bus:
        sessions = names(options.sessions)
        count = 50_000
        cpu, wall = time.process_time(), time.perf_counter()
        for n in range(count):
            await bus.publish(sessions[n % len(sessions)], (event(n),))
            if n % 200 == 199:
                await asyncio.sleep(0)
        await bus.drafts("ses_0")
        return {
            "µs of CPU": (time.process_time() - cpu) / count * 1e6,
            "events/s": count / (time.perf_counter() - wall),
        }


async def following(url: str, options: argparse.Namespace, rate: int) -> dict[str, float]:
    """A reader for each session in this process."""
    latencies: list[float] = []

    async def read(session: str, ready: asyncio.Semaphore) -> None:
        async with bus.subscribe(session) as follower:
            ready.release()
            while not follower.ended:
                if live := await follower.next():
                    latencies.append(age_ms(live.body))

    async with started(url) as bus:
        ready = asyncio.Semaphore(0)
        readers = [asyncio.create_task(read(name, ready)) for name in names(options.sessions)]
        for _ in readers:
            await ready.acquire()
        cpu = time.process_time()
        await other("publish", url, options.sessions, rate, options.seconds, INSTALLATION)
        spent = time.process_time() - cpu
    await asyncio.gather(*readers)
    return figures(spent, latencies, rate * options.seconds)


async def streaming(
    folder: Path, url: str, options: argparse.Namespace, rate: int
) -> dict[str, float]:
    """A gateway in this process, its viewers in another one."""
    await asyncio.to_thread(folder.mkdir)
    async with (
        started(url) as bus,
        running(folder, bus=bus, streams_per_user=options.sessions) as gateway,
    ):
        ada: AsyncClient = await gateway.client("ada")
        made = [(await ada.create_session()).id for _ in range(options.sessions)]
        token = (await ada.login(email("ada"), PASSWORD)).access_token
        followed = [(session, token) for session in made]
        async with viewers(folder, gateway.url, followed) as latencies:
            cpu = time.process_time()
            await other("publish", url, folder / "sessions", rate, options.seconds, INSTALLATION)
            spent = time.process_time() - cpu
    return figures(spent, latencies, rate * options.seconds)


@asynccontextmanager
async def viewers(
    folder: Path, url: str, followed: Sequence[tuple[str, str]]
) -> AsyncGenerator[list[float], None]:
    """A process with a viewer for each session, with a token, while the block runs; how late events came is
    in the list after it. The sessions' names are in the file `sessions`.
    """
    sessions, tokens = zip(*followed, strict=True)
    await asyncio.to_thread((folder / "sessions").write_text, "\n".join(sessions))
    await asyncio.to_thread((folder / "tokens").write_text, "\n".join(tokens))
    viewing = await process("view", url.rpartition(":")[2], folder / "tokens", folder / "sessions")
    assert viewing.stdout is not None
    await viewing.stdout.readline()
    latencies: list[float] = []
    try:
        yield latencies
    finally:
        out, _ = await viewing.communicate(b"\n")
    latencies += json.loads(out)


def figures(spent: float, latencies: list[float], sent: int) -> dict[str, float]:
    """CPU an event, and how late the events came."""
    latencies.sort()
    return {
        "µs of CPU": spent / len(latencies) * 1e6,
        "p50 ms": latencies[len(latencies) // 2],
        "p99 ms": latencies[len(latencies) * 99 // 100],
        "% arrived": 100 * len(latencies) / sent,
    }


async def publish(
    url: str, sessions: Sequence[str], rate: int, seconds: int, installation: str
) -> None:
    """The publisher's process: events of all sessions in turn, evenly."""
    async with started(url, installation) as bus:
        begun, sent = time.monotonic(), 0
        while sent < rate * seconds:
            due = min(int((time.monotonic() - begun) * rate), rate * seconds)
            for n in range(sent, due):
                await bus.publish(sessions[n % len(sessions)], (event(n),))
            sent = due
            await asyncio.sleep(SLICE_SECONDS)
        await bus.drafts("ses_0")
        await asyncio.sleep(0.5)  # what is on its way arrives


async def view(port: int, followed: Sequence[tuple[str, str]]) -> None:
    """The viewers' process: a connection a session; says when all follow, and at the end how late events came."""
    loop = asyncio.get_running_loop()
    viewers: list[Viewer] = []
    for session, token in followed:
        _, viewer = await loop.create_connection(Viewer, "127.0.0.1", port)
        viewer.ask(session, token)
        viewers.append(viewer)
    for viewer in viewers:
        await viewer.follows
    print("following", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps([late for viewer in viewers for late in viewer.latencies]))


class Viewer(asyncio.Protocol):
    """A stream over HTTP, read with as little as can be."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.follows: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, session: str, token: str) -> None:
        """Follow a session."""
        self._transport.write(
            f"GET /v1/sessions/{session}/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"accept: text/event-stream\r\nauthorization: Bearer {token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Called by the loop; the first event is the log's, and says that the stream has begun."""
        if not self.follows.done():
            if b"session.created" in data:
                self.follows.set_result(None)
            return
        at = data.find(SENT)
        while at >= 0:
            self.latencies.append(age_ms(data, at))
            at = data.find(SENT, at + 1)


def age_ms(body: bytes, at: int | None = None) -> float:
    """How long ago the event in it was published."""
    begin = (body.index(SENT) if at is None else at) + len(SENT)
    return (time.monotonic_ns() - int(body[begin : body.index(b",", begin)])) / 1e6


def event(number: int) -> Live:
    """A delta of 120 characters, made now, after the only event of its session's log."""
    body = BODY % (number, time.monotonic_ns(), TEXT)
    return Live(1, "item.delta", durable=False, body=body.encode())


def names(count: int) -> list[str]:
    """That many sessions."""
    return [f"ses_{n}" for n in range(count)]


def read_names(where: str) -> list[str]:
    """The sessions in a file, or that many."""
    return names(int(where)) if where.isdigit() else Path(where).read_text().split()


@asynccontextmanager
async def started(url: str, installation: str = INSTALLATION) -> AsyncGenerator[Bus, None]:
    """A bus that is there."""
    bus: Bus = backend("bus", url)(url, installation)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


async def process(*arguments: Any) -> asyncio.subprocess.Process:
    """One of the other processes."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bus", *map(str, arguments),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 28,
    )  # fmt: skip


async def other(*arguments: Any) -> None:
    """One of the other processes, up to its end."""
    running_one = await process(*arguments)
    await running_one.communicate()
    assert running_one.returncode == 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument(
        "--rates", type=int, nargs="+", default=[5_000, 20_000], help="events a second"
    )
    return parser.parse_args()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["publish", url, where, rate, seconds, installation]:
            uvloop.run(publish(url, read_names(where), int(rate), int(seconds), installation))
        case ["view", port, tokens, where]:
            pairs = list(zip(read_names(where), read_names(tokens), strict=True))
            uvloop.run(view(int(port), pairs))
        case _:
            uvloop.run(main(_parsed()))

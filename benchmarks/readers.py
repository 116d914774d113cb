"""How late an event comes to readers that read, beside readers that have stopped (G19).

`python -m benchmarks.readers`: gateway, readers and followers share one process here, so what the followers
cost counts as lateness, too.
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import uvloop

from tests.flows.test_loads import Reader, titles
from tests.gateway import PASSWORD, Gateway, email, running
from tests.servers import data
from zene.client import AsyncClient
from zene.gateway.shapes import Session

EVENT_SECONDS = 0.05  # between two events


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stalled", type=int, default=500, help="readers that stop")
    parser.add_argument("--healthy", type=int, default=50, help="readers that read")
    parser.add_argument("--events", type=int, default=200, help="events that are timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zene-bench-") as folder:
        late = uvloop.run(_measured(Path(folder), options))
    late.sort()
    print(
        f"{options.stalled} stopped, {options.healthy} reading, n = {len(late)}: "
        f"p50 {late[len(late) // 2] * 1000:.1f} ms, p99 {late[len(late) * 99 // 100] * 1000:.1f} ms"
    )


async def _measured(folder: Path, options: argparse.Namespace) -> list[float]:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running(folder, streams_per_user=max(options.stalled, options.healthy))
        )
        ada, bob = await gateway.client("ada"), await gateway.client("bob")
        stalled, healthy = await ada.create_session(), await bob.create_session()
        token = (await ada.login(email("ada"), PASSWORD)).access_token
        readers = [Reader(gateway.url, stalled, token) for _ in range(options.stalled)]
        for reader in readers:
            stack.callback(reader.socket.close)
        await asyncio.gather(*(reader.begin() for reader in readers))
        late: list[float] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(options.healthy):
                group.create_task(_follow(bob, healthy, options.events, late))
            await _say(gateway, stalled, healthy, options.events)
    return late


async def _say(gateway: Gateway, stalled: Session, healthy: Session, events: int) -> None:
    for number in range(events):
        if number < 8:
            await gateway.append(stalled.id, titles(*["x" * 20_000] * 20))
        await gateway.append(healthy.id, titles(str(time.monotonic())))
        await asyncio.sleep(EVENT_SECONDS)


async def _follow(client: AsyncClient, session: Session, count: int, late: list[float]) -> None:
    async with aclosing(client.follow(session.id)) as events:
        async for event in events:
            if event.seq > 1:
                late.append(time.monotonic() - float(data(event)["title"]))
            if event.seq > count:
                return


if __name__ == "__main__":
    main()

"""What followers see while a task runs: durable events after their commit, deltas gathered for a moment.

The first delta of an item goes out at once, later ones together every `FLUSH_SECONDS`. Durable events
are never overtaken: what was gathered goes out before them.
"""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from zene.bus.base import Bus, live
from zene.domain.events import Draft, Event, ItemDelta, envelope
from zene.domain.times import rfc3339
from zene.worker.desk import now_ms

FLUSH_SECONDS = 0.03


class Publisher:
    """Publishes the events of one task. `close` drops what is still gathered."""

    def __init__(self, bus: Bus, session_id: str) -> None:
        self._bus = bus
        self._session_id = session_id
        self._seq = 0
        self._gathered: dict[str, _Gathered] = {}
        self._begun: set[str] = set()
        self._due = asyncio.Event()

    def delta(self, draft: Draft) -> None:
        """Take a delta; returns at once."""
        delta = draft.body
        if not isinstance(delta, ItemDelta):
            message = f"{delta.type} is not fleeting: it belongs into a batch"
            raise TypeError(message)
        gathered = self._gathered.get(delta.item_id)
        if gathered is None or not gathered.add(delta):
            self._gathered[delta.item_id] = _Gathered(draft, delta)
        self._due.set()

    async def events(self, events: Sequence[Event]) -> None:
        """Publish committed events, after the deltas that came before them."""
        await self.flush()
        if events:
            self._seq = events[-1].seq
            await self._bus.publish(self._session_id, [live(event) for event in events])

    async def flush(self) -> None:
        """Publish what was gathered."""
        gathered, self._gathered = self._gathered, {}
        for one in gathered.values():
            draft = replace(one.draft, body=one.whole())
            event = envelope(
                draft, session_id=self._session_id, seq=self._seq, ts=rfc3339(now_ms())
            )
            await self._bus.publish_delta(self._session_id, draft, live(event))

    async def run(self) -> None:
        """Flush for as long as the task runs; ended by cancelling."""
        while True:
            await self._due.wait()
            self._due.clear()
            if self._gathered.keys() <= self._begun:
                await asyncio.sleep(FLUSH_SECONDS)
            self._begun.update(self._gathered)
            await self.flush()


class _Gathered:
    """Deltas of one item that follow on each other, as one."""

    def __init__(self, draft: Draft, first: ItemDelta) -> None:
        self.draft = draft
        self._first = first
        self._pieces = [first.text]
        self._end = first.offset + len(first.text)

    def add(self, delta: ItemDelta) -> bool:
        """Whether the delta goes on where this one ends."""
        if delta.offset != self._end or delta.stream != self._first.stream:
            return False
        self._pieces.append(delta.text)
        self._end += len(delta.text)
        return True

    def whole(self) -> ItemDelta:
        first = self._first
        return ItemDelta(
            item_id=first.item_id,
            kind=first.kind,
            offset=first.offset,
            text="".join(self._pieces),
            stream=first.stream,
        )

"""What followers see while a task runs: durable events after their commit, deltas gathered for a moment.

The first delta of an item goes out at once, later ones together every `FLUSH_SECONDS`. Durable events
are never overtaken: what was gathered goes out before them. The text of open items is held here, and
published anew, whole, where the bus has lost it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from msgspec.structs import replace

from zene.bus.base import Bus, live
from zene.bus.texts import Text
from zene.domain.events import Draft, Event, ItemDelta, envelope
from zene.domain.times import rfc3339
from zene.worker.desk import now_ms

FLUSH_SECONDS = 0.03
LOOK_SECONDS = 1.0  # how long a loss is not noticed where an item is silent


class Publisher:
    """Publishes the events of one task; its deltas only until it is silenced."""

    def __init__(
        self, bus: Bus, session_id: str, *, is_silenced: Callable[[], bool] = lambda: False
    ) -> None:
        self._bus = bus
        self._is_silenced = is_silenced
        self._session_id = session_id
        self._seq = 0
        self._gathered: list[_Gathered] = []
        self._newest: dict[str, _Gathered] = {}
        self._open: dict[str, Text] = {}
        self._losses = bus.losses
        self._due = asyncio.Event()

    def delta(self, draft: Draft) -> None:
        """Take a delta; returns at once."""
        delta = draft.body
        if not isinstance(delta, ItemDelta):
            message = f"{delta.type} is not fleeting: it belongs into a batch"
            raise TypeError(message)
        newest = self._newest.get(delta.item_id)
        if newest is None or not newest.add(delta):
            newest = self._newest[delta.item_id] = _Gathered(draft, delta)
            self._gathered.append(newest)
        self._due.set()

    async def events(self, events: Sequence[Event], fleeting: Draft | None = None) -> None:
        """Publish committed events, after the deltas that came before them, and a fleeting one with them."""
        await self.flush()
        if events:
            self._seq = events[-1].seq
            for event in events:
                if event.type == "item.completed" and event.item_id:
                    self._open.pop(event.item_id, None)
            now = [] if fleeting is None else [self._envelope(fleeting)]
            await self._bus.publish(self._session_id, [live(event) for event in (*events, *now)])

    async def flush(self) -> None:
        """Publish what was gathered, or every open item's whole text where the bus has lost that."""
        drafts = [one.whole() for one in self._gathered]
        self._gathered, self._newest = [], {}
        if self._is_silenced():
            return
        for draft in drafts:
            delta = cast("ItemDelta", draft.body)
            self._open.setdefault(delta.item_id, Text(draft)).replace(delta)
        if self._losses != self._bus.losses:
            self._losses = self._bus.losses
            drafts = [text.whole() for text in self._open.values()]
        for draft in drafts:
            await self._bus.publish_delta(self._session_id, draft, live(self._envelope(draft)))

    async def run(self) -> None:
        """Flush for as long as the task runs; ended by cancelling."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._due.wait()
            self._due.clear()
            if self._newest.keys() <= self._open.keys():
                await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    def _envelope(self, draft: Draft) -> Event:
        """A fleeting event, at the last durable one."""
        ts = rfc3339(now_ms())
        return envelope(draft, session_id=self._session_id, seq=self._seq, ts=ts)


class _Gathered:
    """Deltas of one item that follow on each other, as one."""

    def __init__(self, draft: Draft, first: ItemDelta) -> None:
        self._draft = draft
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

    def whole(self) -> Draft:
        return replace(self._draft, body=replace(self._first, text="".join(self._pieces)))

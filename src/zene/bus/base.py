"""The bus is speed, the store is truth: whatever it loses costs a delay and never an event or a task.

Publishing may fail and then says so only in the log; reading from the store repairs it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from zene.domain.events import FLEETING, Draft, Event


class Live(Struct, frozen=True, array_like=True):
    """An event on its way to followers: `body` is the whole envelope as JSON.

    `durable` ones have an SSE id. `completes` is the item whose text so far is no longer needed.
    """

    seq: int
    type: str
    durable: bool
    body: bytes
    completes: str | None = None


_encoder = msgspec.json.Encoder()


def live(event: Event) -> Live:
    """The event as followers get it."""
    return Live(
        event.seq,
        event.type,
        durable=event.type not in FLEETING,
        body=_encoder.encode(event),
        completes=event.item_id if event.type == "item.completed" else None,
    )


class Signal(Struct, frozen=True, kw_only=True):
    """A word to the worker that holds a session. The store has it already: a lost signal is found by the sweep."""

    kind: Literal["cancel", "steer", "delete"]
    session_id: str
    task_id: str | None = None


class Subscription(Protocol):
    """Live events of one session since it was opened. It is bounded, and what it follows may be away for a
    while: one that missed something ends with `lagged` set, and its reader goes on from the store.
    """

    ended: bool
    lagged: bool

    @property
    def has_more(self) -> bool:
        """Whether `next` would answer at once."""
        ...

    async def next(self, timeout_seconds: float) -> Live | None:
        """The next event; None when the time is up or the subscription has ended."""
        ...


class LiveEvents(Protocol):
    """From workers to followers."""

    losses: int
    """Grows whenever texts so far may have been lost: who holds open items then publishes them anew,
    each as one delta at offset 0."""

    async def publish(self, session_id: str, events: Sequence[Live]) -> None:
        """Hand events to followers, durable ones after their commit. Neither waits nor raises for a failing bus."""
        ...

    async def publish_delta(self, session_id: str, draft: Draft, live: Live) -> None:
        """Hand an ItemDelta to followers and keep the item's text so far until its item.completed is
        published. One at offset 0 begins the text anew. Neither waits nor raises for a failing bus.
        """
        ...

    async def drafts(self, session_id: str) -> list[Draft]:
        """The text so far of each open item, as one ItemDelta at offset 0 each, of the task it belongs to.
        None of them where the bus is away.
        """
        ...

    def subscribe(self, session_id: str) -> AbstractAsyncContextManager[Subscription]:
        """Follow a session from the moment the context is entered. Where the bus is away, the subscription
        ends as lagged once it is back.
        """
        ...


class WorkersWords(Protocol):
    """From anyone to workers."""

    async def wake(self) -> None:
        """Tell workers that something may be ready in the store."""
        ...

    async def wakened(self, timeout_seconds: float) -> bool:
        """Wait for `wake`; False when the time is up. A wake while nobody waits is kept, once."""
        ...

    async def signal(self, signal: Signal) -> None:
        """Send a word to every worker. Never raises for a failing bus."""
        ...

    def signals(self) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        """Signals from the moment the context is entered."""
        ...


class Bus(LiveEvents, WorkersWords, Protocol):
    """To be started before use, once. Closing it twice is harmless."""

    async def start(self) -> None:
        """Begin. Raises SetupError where the bus cannot be used, with what to do about it."""
        ...

    async def close(self) -> None:
        """End every subscription."""
        ...

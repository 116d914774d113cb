"""The bus is speed, the store is truth: whatever it loses costs a delay and never an event or a task.

Publishing may fail and then says so only in the log; reading from the store repairs it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from zene.domain.errors import ZeneError
from zene.domain.events import FLEETING, Body, Draft, Event

WINDOW_BYTES = 128 << 10  # of a transfer, each way, that were sent and not taken yet
REQUEST_BYTES = 64 << 10
MOST_TRANSFERS = (
    200  # sides of transfers in one process; a window each is less than Redis lets wait
)
ASK_SECONDS = 2.5  # in which somebody has to take a request
IDLE_SECONDS = 60.0


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


def word(body: Body) -> Live:
    """A word to a user: of no session, so without a `seq`, and its body alone."""
    return Live(0, body.type, durable=False, body=_encoder.encode(body))


REVOKED = Live(0, "revoked", durable=False, body=b"")
"""Told to a user: a sign-in of theirs may have ended, or their role have changed. Whoever serves them looks anew."""


class Signal(Struct, frozen=True, kw_only=True):
    """A word to the worker that holds a session. The store has it already: a lost signal is found by the sweep."""

    kind: Literal["cancel", "delete", "steer"]
    session_id: str
    task_id: str | None = None


Taker = Callable[[Sequence["Live"]], Sequence["Live"]]
"""Takes the first of some events, or none; those it leaves. Where it raises, its subscription ends as lagged."""


class Subscription(Protocol):
    """Live events of one session, and words to one user, since it was opened. It is bounded, and what it follows may be away for a
    while: one that missed something ends with `lagged` set, and its reader goes on from the store.
    """

    ended: bool
    lagged: bool

    @property
    def has_more(self) -> bool:
        """Whether `next` would answer at once."""
        ...

    async def next(
        self, timeout_seconds: float | None = None, take: Taker | None = None
    ) -> Live | None:
        """The next event; None when the time is up, after a nudge, and where the subscription has ended. While
        nothing else has arrived, `take` is handed what does, and may take it: that costs no turn of the loop.
        """
        ...

    def nudge(self) -> None:
        """Let a `next` that waits return; one that comes later does not learn of it."""
        ...


class LiveEvents(Protocol):
    """From workers, and gateways, to followers."""

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

    async def tell(self, user_id: str, word: Live) -> None:
        """Hand a word to every subscription of the user, in any process. Neither waits nor raises for a failing
        bus, and nobody repeats it: what must become known is looked for in the store, too.
        """
        ...

    def subscribe(
        self, session_id: str, user_id: str | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """Follow a session, for a user, from the moment the context is entered. Where the bus is away, the
        subscription ends as lagged once it is back.
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


class Transfer(Protocol):
    """One side of a request that a worker answers: bytes both ways, each with an end of its own, in order and
    whole, or the error why not. One reader and one writer a side. Once it has failed, here or there, both
    sides raise that error: what a worker raises comes out the same where it was asked.
    """

    async def send(self, piece: bytes, seconds: float = IDLE_SECONDS) -> None:
        """Send bytes, waiting while WINDOW_BYTES are not taken. Raises Unavailable when none is for so long."""
        ...

    def end(self) -> None:
        """Say that nothing more is sent: without it the other side never takes what came for all."""
        ...

    async def receive(self, seconds: float = IDLE_SECONDS) -> bytes | None:
        """The next bytes; None at the other's end. Raises Unavailable when nothing comes for so long."""
        ...

    def fail(self, error: ZeneError) -> None:
        """End it on both sides with this error. Nothing where it is over."""
        ...

    def when_lost(self, call: Callable[[], object]) -> None:
        """Call this when the other side leaves, fails or is found to be dead; now, where that was before."""
        ...

    def close(self) -> None:
        """Let go. The other side learns where that is too early. Twice is harmless."""
        ...


class Asked(Struct, frozen=True):
    """A request that nobody else has; whoever takes it closes the transfer."""

    request: bytes
    transfer: Transfer


class Transfers(Protocol):
    """Requests to workers. Their bytes never take the way of events, and leave nothing behind."""

    def ask(self, request: bytes, *, about: str) -> AbstractAsyncContextManager[Transfer]:
        """Ask one worker: the one that holds what it is `about`, else always the same of those there are.

        Raises Unavailable within ASK_SECONDS where there is none. Leaving closes the transfer.
        """
        ...

    def asked(
        self, holds: Callable[[str], bool]
    ) -> AbstractAsyncContextManager[AsyncIterator[Asked]]:
        """Requests to this worker, which says what it holds. Leaving fails those that are not over."""
        ...


class _Process(Struct, frozen=True, kw_only=True, tag_field="kind"):
    name: str
    host: str
    version: str
    started_at: int  # ms since 1970
    draining: bool = False


class WorkerProcess(_Process, frozen=True, kw_only=True, tag="worker"):
    """A worker as it last said of itself: it works on `running` tasks, and can on `slots`."""

    slots: int
    running: int


class GatewayProcess(_Process, frozen=True, kw_only=True, tag="gateway"):
    """A gateway as it last said of itself: its open streams and long polls, of so many users."""

    streams: int
    users: int


Process = WorkerProcess | GatewayProcess


class Presence(Protocol):
    """Which processes there are. A name is one process's alone."""

    async def announce(self, process: Process, seconds: float) -> None:
        """Say what this process is and does; after so many seconds without another word it is taken for
        gone. Neither waits nor raises for a failing bus.
        """
        ...

    async def withdraw(self, name: str) -> None:
        """Say that it is gone. Harmless where it was not there; never raises for a failing bus."""
        ...

    async def present(self) -> list[Process]:
        """Those that are there. Raises Unavailable where the bus is away."""
        ...


class Bus(LiveEvents, WorkersWords, Transfers, Presence, Protocol):
    """To be started before use, once. Closing it twice is harmless."""

    async def start(self) -> None:
        """Begin. Raises SetupError where the bus cannot be used, with what to do about it."""
        ...

    async def close(self) -> None:
        """End every subscription."""
        ...

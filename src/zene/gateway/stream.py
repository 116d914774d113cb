"""`GET sessions/{id}/stream`: a session's events as they happen, as server-sent events over raw ASGI.

Subscribe first, then read the log up to its head, then drop what was seen; where `seq` jumps, read the
gap from the store. So a reader gets every event once and in order, whatever the bus loses. Deltas carry
no id, and begin for each open item with its text so far.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp, Receive, Scope, Send

from zene import telemetry
from zene.bus.base import REVOKED, Live, Subscription, live
from zene.domain.errors import InvalidInput, ZeneError
from zene.domain.events import Draft, Event, QueueChanged, Snapshot, envelope
from zene.domain.times import rfc3339
from zene.gateway import shapes, words
from zene.gateway.calls import Call
from zene.gateway.connections import Connection, connection
from zene.gateway.frames import frame
from zene.gateway.routing import EVENT_STREAM, route
from zene.gateway.snapshots import snapshot
from zene.store import log as event_log
from zene.store import sessions

if TYPE_CHECKING:
    from zene.gateway.following import Followed

_PAGE: Final = 500  # events that are read from the store at once, and their bytes, about
_PAGE_BYTES: Final = 256 << 10
_CHUNK_BYTES: Final = 64 << 10  # what is sent together at most, but for one event that is larger
_RETRY_MS: Final = (500, 2000)  # between these, so that a thousand clients do not come back at once
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
]

log = telemetry.logger(__name__)


class StreamQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to begin: after a `seq`, or with a snapshot. `Last-Event-ID` goes before both."""

    after: shapes.Seq = 0
    origin: Literal["log", "snapshot"] = msgspec.field(default="log", name="from")


@route("GET", "/v1/sessions/{session_id}/stream", access="viewer", media=EVENT_STREAM)
async def stream(call: Call, query: StreamQuery) -> ASGIApp:
    """Follow a session: its log from the cursor on, then live events and deltas."""
    _check_accepted(call)
    session_id = call.id("session_id", "ses")
    session = await call.parts.store.read(sessions.get_session, call.user.id, session_id)
    cursor: int | None = _last_event_id(call)
    if cursor is None:
        cursor = None if query.origin == "snapshot" else query.after
    if cursor is not None and cursor > session.last_seq:
        cursor = None
    return EventStream(call, session_id, cursor)


class EventStream:
    """One reader. `cursor` is the last seq it has, None where it wants a snapshot first."""

    def __init__(self, call: Call, session_id: str, cursor: int | None) -> None:
        self._parts = call.parts
        self._user_id = call.user.id
        self._claims = call.caller.claims
        self._session_id = session_id
        self._snapshot_first = cursor is None
        self._cursor = cursor or 0
        self._send: Send
        self._connection: Connection
        self._followed: Followed
        self._subscription: Subscription | None = None
        self._sent_at = time.monotonic()
        self._is_due = False  # what `_tick` does
        self._is_metered = False  # an event since the last look
        self._open_texts: dict[str | None, Draft] = {}
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._queue: Mapping[str, int] = {}  # as it was told
        self._queue_seq = 0  # of the last event that may have changed it
        self._over = False

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send until the client leaves, may not go on, or does not read."""
        self._send, self._connection = send, connection(scope)
        with self._parts.followers.follow(self._session_id, self._user_id) as self._followed:
            self._parts.ticks.join(self)
            try:
                await self._start()
                await self._follow()
                await self._flush()
                await self._send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                await self._connection.cut_off()
            except ZeneError as err:  # the answer has begun: the client comes back with its cursor
                log.warning("stream.broken_off", session=self._session_id, error=err.message)
            finally:
                self._parts.ticks.leave(self)

    def look(self) -> None:
        """As in Ticking."""
        self._is_metered = False
        if self._due() is not None or not self._parts.sign_ins.is_known(self._claims):
            self._is_due = True
            self._wake()

    def end(self) -> None:
        """As in Ticking."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        if self._subscription is not None:
            self._subscription.nudge()

    async def _start(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        retry = random.randint(*_RETRY_MS)  # noqa: S311 - spreads load, hides nothing
        self._gather(b"retry: %d\n\n" % retry)
        await self._flush()

    async def _follow(self) -> None:
        """Read and send; again from the store whenever the subscription could not keep up, or the bus was away."""
        while not self._over:
            async with self._parts.bus.subscribe(self._session_id, self._user_id) as subscription:
                self._subscription = subscription
                await self._send_what_was()
                await self._pass_on(subscription)

    async def _send_what_was(self) -> None:
        """The log up to its head, and the text so far of what is open."""
        drafts = await self._parts.bus.drafts(self._session_id)
        self._open_texts = {draft.item_id: draft for draft in drafts}
        if self._snapshot_first:
            await self._send_snapshot()
        await self._catch_up()
        await self._send_open_texts()

    async def _pass_on(self, subscription: Subscription) -> None:
        """Send live events until the stream is over or the subscription ends. What arrived together is sent
        with one system call, and no more than a chunk is held.
        """
        while not self._over:
            event = await subscription.next(take=self._take)
            if event is not None:
                await self._deliver(event)
                await self._flush(_CHUNK_BYTES if subscription.has_more else 1)
            elif subscription.ended:
                self._over = not subscription.lagged
                return
            if self._is_due:
                self._is_due = False
                await self._tick()

    def _take(self, events: Sequence[Live]) -> Sequence[Live]:
        """Send what simply comes next, as it comes; the rest is for `_deliver`."""
        if self._connection.is_full:
            return events
        taken, cursor = 0, self._cursor
        while taken < len(events) and _comes_next(events[taken], cursor):
            cursor = max(cursor, events[taken].seq)
            taken += 1
        if taken:
            self._connection.write(b"".join(map(frame, events[:taken])))
            self._cursor, self._sent_at = cursor, time.monotonic()
            for event in events[:taken]:
                self._passed_on(event)
        if self._over:
            self.end()
        return events[taken:]

    async def _deliver(self, event: Live) -> None:
        if _comes_next(event, self._cursor):
            self._gather(frame(event))
            self._cursor = max(self._cursor, event.seq)
            self._passed_on(event)
        elif event.durable:
            if event.seq > self._cursor:
                await self._catch_up()
        elif event.type == REVOKED.type:
            self._over = not await self._parts.sign_ins.still_good(self._claims, look=True)
        elif event.seq == 0:
            if draft := words.shown(event, self._session_id):
                self._gather(frame(live(self._envelope(draft))))
        else:
            await self._catch_up()
            self._gather(frame(event))

    def _passed_on(self, event: Live) -> None:
        """What is to be known of an event that the client has, or that is gathered for it."""
        if event.durable:
            self._note(event.type, event.seq)
            if not self._is_metered:
                self._is_metered = True
                self._parts.meters.delivered(event, self._parts.outside.clock())

    def _gather(self, framed: bytes) -> None:
        """To be sent with the next `_flush`."""
        self._gathered.append(framed)
        self._gathered_bytes += len(framed)

    async def _flush(self, least_bytes: int = 1) -> None:
        """Send what was gathered, where it is so much. A timer, which would cost a fifth of what an event takes,
        is set only where sending waits.
        """
        if self._gathered_bytes < least_bytes:
            return
        chunk = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        if self._connection.is_full:
            async with asyncio.timeout(self._parts.terms.send_seconds):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        else:
            self._connection.write(chunk)
        self._sent_at = time.monotonic()

    async def _tick(self) -> None:
        """See whether it may go on, and do what is due."""
        if not await self._parts.sign_ins.still_good(self._claims):
            self._over = True
        elif due := self._due():
            await due()

    def _due(self) -> Callable[[], Awaitable[None]] | None:
        """What is to be done, if anything: an end, an event that was not published, a sign that the line is alive."""
        followed = self._followed
        if self._connection.is_closing or self._parts.followers.draining:
            return self._end
        if followed.head is None or followed.head > self._cursor:
            return self._send_what_was_found
        if followed.head >= self._queue_seq and followed.queue != self._queue:
            return self._send_queue
        if time.monotonic() - self._sent_at >= self._parts.terms.keep_alive_seconds:
            return self._keep_alive
        return None

    async def _end(self) -> None:
        self._over = True

    async def _send_what_was_found(self) -> None:
        """The log up to its head; that of a session that is gone ends with the event that says so."""
        is_gone = self._followed.head is None
        await self._catch_up()
        self._over = self._over or is_gone

    async def _send_queue(self) -> None:
        """The places that are not what was told last."""
        told, self._queue = self._queue, self._followed.queue
        for task_id, position in self._queue.items():
            if told.get(task_id) != position:
                draft = Draft(body=QueueChanged(position=position), task_id=task_id)
                self._gather(frame(live(self._envelope(draft))))
                await self._flush(_CHUNK_BYTES)
        await self._flush()

    async def _keep_alive(self) -> None:
        self._gather(b":\n\n")
        await self._flush()

    def _note(self, kind: str, seq: int) -> None:
        if kind.startswith("task."):
            self._queue_seq = seq
        elif kind == "session.deleted":
            self._over = True

    async def _catch_up(self) -> None:
        """Send the log from the cursor to its head, after what was gathered before it."""
        await self._flush()
        while not self._over:
            events = await self._parts.store.read(
                event_log.tail, self._session_id, self._cursor, _PAGE, most_bytes=_PAGE_BYTES
            )
            if not events:
                return
            for event in events:
                self._gather(frame(live(event)))
                await self._flush(_CHUNK_BYTES)
                self._note(event.type, event.seq)
                if event.type == "item.completed" and event.item_id:
                    self._open_texts.pop(event.item_id, None)
            await self._flush()
            self._cursor = events[-1].seq

    async def _send_snapshot(self) -> None:
        state = await self._parts.store.read(snapshot, self._user_id, self._session_id)
        self._snapshot_first = False
        self._cursor = state.session.last_seq
        body = Snapshot(seq=self._cursor, state=msgspec.Raw(msgspec.json.encode(state)))
        self._gather(frame(live(self._envelope(Draft(body=body)))))
        await self._flush()

    async def _send_open_texts(self) -> None:
        """The text so far of each open item, so that a message goes on in the middle."""
        for draft in self._open_texts.values():
            self._gather(frame(live(self._envelope(draft))))
            await self._flush()
        self._open_texts.clear()

    def _envelope(self, draft: Draft) -> Event:
        ts = rfc3339(self._parts.outside.clock())
        return envelope(draft, session_id=self._session_id, seq=self._cursor, ts=ts)


def _comes_next(event: Live, cursor: int) -> bool:
    """Whether it goes as it is to a client that has the log up to there."""
    return event.seq == cursor + 1 if event.durable else 0 < event.seq <= cursor


def _last_event_id(call: Call) -> int | None:
    stated = call.request.headers.get("last-event-id")
    if stated is None:
        return None
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 18):
        raise InvalidInput("Last-Event-ID is none that was sent.", code="bad_cursor", status=400)
    return int(stated)


def _check_accepted(call: Call) -> None:
    accepted = call.request.headers.get("accept", "*/*")
    if not any(kind in accepted for kind in ("text/event-stream", "text/*", "*/*")):
        raise InvalidInput(
            "This is a stream; accept text/event-stream.", code="not_acceptable", status=406
        )


ROUTES = (stream,)

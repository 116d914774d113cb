"""The bus of many processes: Redis carries live events, words to workers, and the text so far of open items.

What Redis does not take at once is dropped: followers find it in the store, and who holds the text of open
items publishes it anew as soon as `losses` grows. Every key expires, so a Redis needs no cleaning.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import NamedTuple

import hiredis
import msgspec
from msgspec import Struct

from zene import telemetry
from zene.bus.base import Asked, Live, Process, Signal, Transfer
from zene.bus.channels import Channels
from zene.bus.followers import Follower
from zene.bus.link import Link, opened, patiently
from zene.bus.redis_presence import RedisPresence
from zene.bus.redis_transfers import RedisTransfers
from zene.bus.resp import Address, Handler, Reply, address
from zene.bus.texts import TEXT_LIMIT, Text
from zene.bus.words import Words
from zene.domain.errors import SetupError, Unavailable
from zene.domain.events import Draft, ItemDelta

START_SECONDS = 5.0  # how long a start waits for a Redis that is starting, too
TEXT_SECONDS = 3600  # how long an open item's text is kept without a word from who writes it
READ_SECONDS = 1.0
CLOSE_SECONDS = 1.0

log = telemetry.logger(__name__)
_encode = msgspec.msgpack.Encoder().encode


class _Piece(NamedTuple):
    """A delta as it is kept, and the task it belongs to."""

    delta: ItemDelta
    task_id: str | None
    step: int | None


class _Word(Struct, frozen=True, array_like=True):
    """To workers, from the bus called `sender`, which has heard it already; without a signal it is a wake-up."""

    sender: str
    signal: Signal | None = None


_piece = msgspec.msgpack.Decoder(_Piece).decode
_word = msgspec.msgpack.Decoder(_Word).decode


def open_bus(url: str, installation: str) -> "RedisBus":
    """The bus at that address, to be started; `installation` sets apart those that share a Redis.

    Raises SetupError for a URL that is none.
    """
    return RedisBus(address(url), installation)


class RedisBus:
    """Implements `bus.base.Bus`."""

    def __init__(self, redis: Address, installation: str) -> None:
        self.losses = 0
        self._redis = redis
        self._prefix = f"zene:{installation}"
        self._workers = f"{self._prefix}:workers".encode()
        self._name = secrets.token_hex(8)
        self._channels = Channels()
        self._words = Words()
        self._transfers = RedisTransfers(redis, self._prefix)
        self._presence = RedisPresence(self._prefix, self._send, self._read)
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._missed = 0
        self._told_at = float("-inf")

    async def start(self) -> None:
        """Connect. Raises SetupError where that cannot be done within a few seconds."""
        link = await self._first_link()
        if policy := await link.evicts():
            log.warning(
                "bus.evicts",
                redis=self._redis.shown,
                policy=policy,
                cure="set maxmemory-policy to volatile-ttl or noeviction",
            )
        self._take_up(link)
        self._keeper = asyncio.create_task(self._keep(link), name="bus")
        self._transfers.start()

    async def publish(self, session_id: str, events: Sequence[Live]) -> None:
        """Send the events as one message; forget the text of items they complete."""
        for event in events:
            if event.completes is not None:
                self._send("DEL", self._text(session_id, event.completes))
                self._send("SREM", self._open(session_id), event.completes)
        self._send("PUBLISH", self._live(session_id), _encode(events))

    async def publish_delta(self, session_id: str, draft: Draft, live: Live) -> None:
        """Keep the delta behind those before it, then send it: who reads the text after it has begun to
        follow misses none.
        """
        if isinstance(delta := draft.body, ItemDelta):
            text = self._text(session_id, delta.item_id)
            piece = _encode(_Piece(delta, draft.task_id, draft.step))
            if delta.offset == 0:
                self._begin_text(text, self._open(session_id), delta.item_id, piece)
            elif delta.offset < TEXT_LIMIT:
                # to a list that exists: one that was lost must not begin in the middle, and for ever
                self._send("RPUSHX", text, piece, then=self._continued)
        self._send("PUBLISH", self._live(session_id), _encode((live,)))

    async def drafts(self, session_id: str) -> list[Draft]:
        """The text so far of each open item; none where Redis is away or slow."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                drafts = []
                for item in sorted(await self._read("SMEMBERS", self._open(session_id))):
                    text = self._text(session_id, item.decode())
                    drafts += _whole(await self._read("LRANGE", text, 0, -1))
                return drafts
        return []

    async def tell(self, user_id: str, word: Live) -> None:
        """Send the word as a message of its own."""
        self._send("PUBLISH", self._user(user_id), _encode((word,)))

    @asynccontextmanager
    async def subscribe(
        self, session_id: str, user_id: str | None = None
    ) -> AsyncGenerator[Follower, None]:
        """Follow a session, for a user, from now on: what this process published before has been handed out by then."""
        if self._link is not None and self._link.commands.is_asked:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await self._link.commands.call("PING")
        names = [self._live(session_id), *([self._user(user_id)] if user_id else [])]
        follower = self._channels.join(names)
        try:
            await self._channels.confirmed(names, follower)
            yield follower
        finally:
            self._channels.leave(names, follower)

    async def wake(self) -> None:
        """Wake the workers, those of this process at once."""
        self._words.wake()
        self._send("PUBLISH", self._workers, _encode(_Word(self._name)))

    async def wakened(self, timeout_seconds: float) -> bool:
        """Wait for `wake`, also for one that came before."""
        return await self._words.wakened(timeout_seconds)

    async def signal(self, signal: Signal) -> None:
        """Send the signal to every worker, those of this process at once."""
        self._words.tell(signal)
        self._send("PUBLISH", self._workers, _encode(_Word(self._name, signal)))

    @asynccontextmanager
    async def signals(self) -> AsyncGenerator[AsyncIterator[Signal], None]:
        """Signals from now on."""
        with self._words.listening() as signals:
            yield signals

    def ask(self, request: bytes, *, about: str) -> AbstractAsyncContextManager[Transfer]:
        """Ask a worker."""
        return self._transfers.ask(request, about=about)

    def asked(
        self, holds: Callable[[str], bool]
    ) -> AbstractAsyncContextManager[AsyncIterator[Asked]]:
        """Requests from now on."""
        return self._transfers.asked(holds)

    async def announce(self, process: Process, seconds: float) -> None:
        """Keep a key for it."""
        self._presence.announce(process, seconds)

    async def withdraw(self, name: str) -> None:
        """Drop its key."""
        self._presence.withdraw(name)

    async def present(self) -> list[Process]:
        """Those who have a key."""
        return await self._presence.present()

    async def close(self) -> None:
        """Send what is to be sent, and end every subscription and every transfer."""
        await self._transfers.close(CLOSE_SECONDS)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        link, self._link = self._link, None
        self._channels.end()
        if link is not None:
            await link.commands.close(CLOSE_SECONDS)
            link.drop()

    async def _first_link(self) -> Link:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return await opened(self._redis, self._prefix, self._workers, self._take)
            except SetupError as err:
                raise self._unusable(err.message) from err
            except Unavailable as err:
                if time.monotonic() > deadline:
                    cure = "Start it, or correct ZENE_BUS."
                    raise self._unusable(
                        f"{err.message[:1].upper()}{err.message[1:]}. {cure}"
                    ) from err
            await asyncio.sleep(0.2)

    def _unusable(self, why: str) -> SetupError:
        return SetupError(f"The Redis at {self._redis.shown} cannot be used. {why}")

    async def _keep(self, link: Link) -> None:
        """Hold on to Redis, whatever happens to it; ended by cancelling."""
        while True:
            while (reason := await link.beat()) is None:
                self._make_good(link)
            self._link = None
            link.drop()
            self._channels.pause()
            log.warning("bus.away", redis=self._redis.shown, reason=reason)
            link = await patiently(self._redis, self._prefix, self._workers, self._take)
            self._take_up(link)
            self._missed = 0
            self.losses += 1
            log.info("bus.back", redis=self._redis.shown)

    def _take_up(self, link: Link) -> None:
        self._link = link
        self._channels.go_on(link.subscription)
        self._words.wake()

    def _make_good(self, link: Link) -> None:
        """What was dropped or refused for a while can be kept again."""
        if self._missed and link.takes_writes:
            self._missed = 0
            self.losses += 1

    def _begin_text(self, text: str, open_items: str, item_id: str, piece: bytes) -> None:
        """All or nothing, so that a connection that breaks leaves no key that never expires."""
        self._send("MULTI")
        self._send("DEL", text)
        self._send("RPUSH", text, piece)
        self._send("EXPIRE", text, TEXT_SECONDS)
        self._send("SADD", open_items, item_id)
        self._send("EXPIRE", open_items, TEXT_SECONDS)
        self._send("EXEC")

    def _send(self, *command: str | bytes | int, then: Handler | None = None) -> None:
        if self._link is None:
            return
        if not self._link.commands.send(*command, then=then or self._done):
            self._miss(f"more than Redis takes is waiting, {command[0]!s} was dropped")

    def _done(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._refused(str(reply))

    def _continued(self, reply: Reply) -> None:
        if reply == 0:
            self.losses += 1
        else:
            self._done(reply)

    def _refused(self, said: str) -> None:
        self._miss(said)
        if said.startswith("READONLY") and self._link is not None:
            self._link.commands.drop("it has become a read-only replica")

    def _miss(self, reason: str) -> None:
        """Something was not kept or sent: said once a second at most, and made good later."""
        self._missed += 1
        if time.monotonic() - self._told_at >= 1:
            self._told_at = time.monotonic()
            log.warning("bus.missed", redis=self._redis.shown, reason=reason, since=self._missed)

    async def _read(self, *command: str | bytes | int) -> list[bytes]:
        if self._link is None:
            raise Unavailable("Redis is away.")
        reply = await self._link.commands.call(*command)
        if isinstance(reply, hiredis.ReplyError):
            raise Unavailable(str(reply))
        found: list[bytes] = reply
        return found

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, list) and reply[0] == b"message" and reply[1] == self._workers:
            self._hear(reply[2])
        else:
            self._channels.take(reply)

    def _hear(self, message: bytes) -> None:
        try:
            word = _word(message)
        except msgspec.DecodeError as err:
            log.warning("bus.not_understood", error=str(err))
            return
        if word.sender == self._name:
            return
        if word.signal is None:
            self._words.wake()
        else:
            self._words.tell(word.signal)

    def _live(self, session_id: str) -> bytes:
        return f"{self._prefix}:live:{session_id}".encode()

    def _user(self, user_id: str) -> bytes:
        return f"{self._prefix}:user:{user_id}".encode()

    def _text(self, session_id: str, item_id: str) -> str:
        return f"{self._prefix}:text:{session_id}:{item_id}"

    def _open(self, session_id: str) -> str:
        return f"{self._prefix}:open:{session_id}"


def _whole(pieces: Sequence[bytes]) -> list[Draft]:
    """The text that the pieces make; none where there are no pieces, or none that are understood."""
    text: Text | None = None
    try:
        for delta, task_id, step in map(_piece, pieces):
            text = text or Text(
                Draft(body=delta, task_id=task_id, step=step, item_id=delta.item_id)
            )
            text.replace(delta)
    except msgspec.DecodeError as err:
        log.warning("bus.not_understood", error=str(err))
    return [] if text is None else [text.whole()]

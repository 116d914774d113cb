"""Transfers over Redis: frames are published, so nothing of a file is ever kept there.

On two connections of their own, since Redis drops a subscriber that is 32 MiB behind, and events must not
go with it. A process has a channel for what comes to it, a new one each time it connects: whoever sends to
the one before is told that nobody is there. So a loss of Redis, or of the other side, is an error at once.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from zene import telemetry
from zene.bus.asking import Served, check, name_of_worker, nobody
from zene.bus.base import ASK_SECONDS, Asked, Transfer
from zene.bus.link import patiently
from zene.bus.offers import Ask, Begin, Offer, Offers
from zene.bus.publishing import Message, Publisher, Way, away, ignore
from zene.bus.resp import Address, Reply
from zene.bus.sides import Failed, Frame, Side
from zene.domain.errors import Unavailable
from zene.domain.faults import fault

AGAIN_SECONDS = 0.05

log = telemetry.logger(__name__)
_decode = msgspec.msgpack.Decoder(Message).decode


class RedisTransfers:
    """Implements `bus.base.Transfers`, between `start` and `close`."""

    def __init__(self, redis: Address, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._asks = f"{prefix}:files:asks".encode()
        self._inbox = b""
        self._linked = asyncio.Event()
        self._publisher = Publisher()
        self._sides: dict[str, Side] = {}  # those that ask
        self._offers: dict[str, Offers] = {}
        self._served: Served | None = None
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._keeper = asyncio.create_task(self._keep(), name="transfers")

    @asynccontextmanager
    async def ask(self, request: bytes, *, about: str) -> AsyncGenerator[Transfer, None]:
        """Ask all, then hand the request to one of those that offer."""
        check(request, len(self._sides))
        side = await self._begun(request, about)
        try:
            yield side
        finally:
            side.close()

    @asynccontextmanager
    async def asked(
        self, holds: Callable[[str], bool]
    ) -> AsyncGenerator[AsyncIterator[Asked], None]:
        """Be asked from now on, or as soon as Redis is there."""
        self._served = served = Served(holds)
        self._subscribe("SUBSCRIBE")
        try:
            yield served.requests()
        finally:
            self._subscribe("UNSUBSCRIBE")
            served.close()
            self._served = None

    async def close(self, seconds: float) -> None:
        """End every transfer, and tell the other sides."""
        for side in self._all():
            side.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        link = self._publisher.link
        self._publisher.reset(None)
        if link is not None:
            await link.commands.close(seconds)
            link.drop()

    async def _begun(self, request: bytes, about: str) -> Side:
        failure = away()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                while True:
                    await self._linked.wait()
                    failure = nobody()
                    try:
                        return await self._begin(await self._chosen(about), request)
                    except Unavailable as err:
                        failure = err
                    await asyncio.sleep(AGAIN_SECONDS)
        except TimeoutError:
            raise failure from None

    async def _chosen(self, about: str) -> Offer:
        """The offer to take. Raises Unavailable where there is none."""
        name = secrets.token_hex(8)
        offers = self._offers[name] = Offers()
        try:
            if (asked := await self._publisher.ask(self._asks, Ask(name, about, self._inbox))) == 0:
                raise nobody()
            await offers.come(asked)
        finally:
            del self._offers[name]
        return offers.best(about)

    async def _begin(self, offer: Offer, request: bytes) -> Side:
        name, way = offer.transfer, Way(self._publisher, offer.inbox)
        side = Side(name_of_worker(name), way, partial(self._sides.pop, name), asks=True)
        way.lost = side.lose
        self._sides[name] = side
        try:
            begin = Begin(name, self._inbox, request)
            came_to = await self._publisher.ask(offer.inbox, begin)
        except BaseException:
            side.close()
            raise
        if came_to == 0:
            side.close()
            raise nobody()
        return side

    async def _keep(self) -> None:
        """Hold on to Redis, whatever happens to it; ended by cancelling."""
        while True:
            inbox = f"{self._prefix}:files:to:{secrets.token_hex(8)}".encode()
            link = await patiently(self._redis, self._prefix, inbox, self._take)
            self._inbox = inbox
            self._publisher.reset(link)
            if self._served is not None:
                self._subscribe("SUBSCRIBE")
            self._linked.set()
            while (reason := await link.beat()) is None:
                now = asyncio.get_running_loop().time()
                for side in self._all():
                    side.look(now)
            self._linked.clear()
            self._publisher.reset(None)
            link.drop()
            log.warning("transfers.away", redis=self._redis.shown, reason=reason)
            for side in self._all():
                side.lose(Unavailable("Redis was lost during a transfer.", retry_after=2))

    def _subscribe(self, command: str) -> None:
        link = self._publisher.link
        if link is not None and not link.subscription.send(command, self._asks, then=None):
            link.drop()

    def _all(self) -> list[Side]:
        served = self._served.sides.values() if self._served is not None else ()
        return [*self._sides.values(), *served]

    def _take(self, reply: Reply) -> None:
        """What Redis says on the subscription; a confirmation says nothing."""
        if not isinstance(reply, list):
            log.warning("transfers.refused", redis=self._redis.shown, error=str(reply))
            if self._publisher.link is not None:
                self._publisher.link.drop()
        elif reply[0] == b"message":
            try:
                self._hear(_decode(reply[2]))
            except msgspec.DecodeError as err:
                log.warning("transfers.not_understood", error=str(err))

    def _hear(self, message: Message) -> None:
        match message:
            case Ask():
                self._offer(message)
            case Offer():
                if offers := self._offers.get(message.transfer):
                    offers.add(message)
            case Begin():
                self._serve(message)
            case _:
                self._hand_on(message)

    def _offer(self, ask: Ask) -> None:
        if (served := self._served) is not None:
            offer = Offer(ask.transfer, self._inbox, served.holds(ask.about), served.is_full)
            self._publisher.post(ask.inbox, offer, ignore)

    def _serve(self, begin: Begin) -> None:
        way = Way(self._publisher, begin.inbox)
        try:
            if self._served is None:
                raise nobody()
            side = self._served.begin(begin.transfer, begin.request, way)
        except Unavailable as err:
            way.post(Failed(begin.transfer, fault(err)))
        else:
            way.lost = side.lose

    def _hand_on(self, frame: Frame) -> None:
        side = self._sides.get(frame.to)
        if side is None and self._served is not None:
            side = self._served.sides.get(frame.to)
        if side is not None:
            side.take(frame)

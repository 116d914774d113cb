"""Frames of transfers on their way into Redis: a few at a time, and who they are for is known to be there."""

import asyncio
from collections.abc import Callable

import hiredis
import msgspec

from zene.bus.link import Link
from zene.bus.offers import Ask, Begin, Offer
from zene.bus.resp import Reply
from zene.bus.sides import Frame
from zene.domain.errors import Unavailable, ZeneError

MOST_ON_THEIR_WAY = 2 << 20  # bytes that Redis has not confirmed

Message = Ask | Offer | Begin | Frame
_encode = msgspec.msgpack.Encoder().encode


def away() -> Unavailable:
    """There is no Redis."""
    return Unavailable("Redis is away; try again soon.", retry_after=2)


class Publisher:
    """Publishes over `link`, one after the other where links are lost."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self._on_their_way = 0
        self._few = asyncio.Event()
        self._few.set()

    async def ask(self, channel: bytes, message: Ask | Begin) -> int:
        """To how many it went. Raises Unavailable."""
        if self.link is None:
            raise away()
        reply = await self.link.commands.call("PUBLISH", channel, _encode(message))
        if isinstance(reply, hiredis.ReplyError):
            raise Unavailable(f"Redis refuses: {reply}.", retry_after=2)
        return int(reply)

    def post(self, channel: bytes, message: Message, lost: Callable[[ZeneError], object]) -> None:
        """Send it; `lost` is called where nobody gets it."""
        link, packed = self.link, _encode(message)

        def sent(reply: Reply) -> None:
            if link is self.link:
                self._count(-len(packed))
            if reply == 0:
                lost(Unavailable("The other side of a transfer is gone.", retry_after=1))
            elif isinstance(reply, hiredis.ReplyError):
                lost(Unavailable(f"Redis refuses: {reply}.", retry_after=2))

        if link is None:
            lost(away())
        elif link.commands.send("PUBLISH", channel, packed, then=sent):
            self._count(len(packed))
        else:
            lost(Unavailable("Redis takes too little; try again soon.", retry_after=2))

    async def clear(self) -> None:
        """Wait until little is on its way."""
        while self._on_their_way > MOST_ON_THEIR_WAY:
            await self._few.wait()

    def reset(self, link: Link | None) -> None:
        """What was on its way is not any more."""
        self.link = link
        self._on_their_way = 0
        self._few.set()

    def _count(self, size: int) -> None:
        self._on_their_way += size
        if self._on_their_way > MOST_ON_THEIR_WAY:
            self._few.clear()
        else:
            self._few.set()


class Way:
    """Implements `bus.sides.Wire`: to one inbox. `lost` is called where nobody reads it any more."""

    def __init__(self, publisher: Publisher, inbox: bytes) -> None:
        self.lost: Callable[[ZeneError], object] = ignore
        self._publisher = publisher
        self._inbox = inbox

    async def clear(self) -> None:
        """Wait until little is on its way."""
        await self._publisher.clear()

    def post(self, frame: Frame) -> None:
        """Send it."""
        self._publisher.post(self._inbox, frame, self.lost)


def ignore(_: ZeneError) -> None:
    """It does not matter whether somebody gets it."""

"""What this process follows on Redis: one subscription a channel, however many followers it has here.

Who began while Redis was away, or was there when it went, has missed something: they end as lagged
as soon as their channel is followed again, and read the store.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import hiredis
import msgspec

from zene import telemetry
from zene.bus.base import Live
from zene.bus.followers import Follower
from zene.bus.resp import Connection, Reply

CONFIRM_SECONDS = (
    1.0  # how long a reader waits to be subscribed before it reads the store all the same
)
_AT_ONCE = 500  # channels in one command

log = telemetry.logger(__name__)
_decoder = msgspec.msgpack.Decoder(list[Live])


class Channels:
    """The channels that have followers here, over one connection after the other."""

    def __init__(self) -> None:
        self._channels: dict[bytes, _Channel] = {}
        self._awaited: Counter[bytes] = Counter()
        self._connection: Connection | None = None

    def join(self, names: Sequence[bytes]) -> Follower:
        """Follow the channels, as soon as Redis is back where it is away. To be left."""
        follower = Follower()
        for name in names:
            self._joined(name).followers.append(follower)
        return follower

    async def confirmed(self, names: Sequence[bytes], follower: Follower) -> None:
        """Wait until what is said there reaches the follower, unless that takes long."""
        channels = [self._channels[name] for name in names]
        awaited = [channel.confirmed for channel in channels if not channel.is_live]
        if self._connection is not None and awaited:
            await asyncio.wait(awaited, timeout=CONFIRM_SECONDS)
        for channel in channels:
            if not channel.is_live:
                follower.is_blind = True

    def leave(self, names: Sequence[bytes], follower: Follower) -> None:
        """Follow them no longer."""
        for name in names:
            self._leave(name, follower)

    def go_on(self, connection: Connection) -> None:
        """Follow everything over a new connection."""
        self._connection = connection
        names = list(self._channels)
        for begin in range(0, len(names), _AT_ONCE):
            self._ask("SUBSCRIBE", names[begin : begin + _AT_ONCE])

    def pause(self) -> None:
        """The connection is lost."""
        self._connection = None
        self._awaited.clear()
        for channel in self._channels.values():
            channel.lose()

    def end(self) -> None:
        """End every follower."""
        for channel in self._channels.values():
            for follower in channel.followers:
                follower.end()

    def take(self, reply: Reply) -> None:
        """What Redis says on the connection: a message, or that a subscription has begun."""
        if isinstance(reply, hiredis.ReplyError):
            if self._connection is not None:
                self._connection.drop(str(reply))
        elif reply[0] == b"message":
            if channel := self._channels.get(reply[1]):
                channel.deliver(reply[2])
        elif reply[0] == b"subscribe":
            self._confirm(reply[1])

    def _joined(self, name: bytes) -> "_Channel":
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
            self._ask("SUBSCRIBE", [name])
        return channel

    def _leave(self, name: bytes, follower: Follower) -> None:
        channel = self._channels[name]
        channel.followers.remove(follower)
        if not channel.followers:
            del self._channels[name]
            self._ask("UNSUBSCRIBE", [name])

    def _ask(self, command: str, names: Sequence[bytes]) -> None:
        if self._connection is None:
            return
        if command == "SUBSCRIBE":
            self._awaited.update(names)
        if not self._connection.send(command, *names, then=None):
            self._connection.drop("Redis does not take more commands")

    def _confirm(self, name: bytes) -> None:
        """One that was left and begun anew is followed since the last of its confirmations."""
        self._awaited[name] -= 1
        if self._awaited[name] <= 0:
            del self._awaited[name]
            if channel := self._channels.get(name):
                channel.begin()


class _Channel:
    __slots__ = ("confirmed", "followers", "is_live")

    def __init__(self) -> None:
        self.followers: list[Follower] = []
        self.is_live = False
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self.is_live = True
        self._release()
        for follower in self.followers:
            if follower.is_blind:
                follower.end(lagged=True)

    def lose(self) -> None:
        self.is_live = False
        for follower in self.followers:
            follower.is_blind = True
        self._release()
        self.confirmed = self.confirmed.get_loop().create_future()

    def deliver(self, message: bytes) -> None:
        try:
            events = _decoder.decode(message)
        except msgspec.DecodeError as err:
            log.warning("bus.not_understood", error=str(err))
            return
        for follower in self.followers:
            follower.offer(events)

    def _release(self) -> None:
        with suppress(asyncio.InvalidStateError):
            self.confirmed.set_result(None)

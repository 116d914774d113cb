"""Both connections to Redis, one for commands and one that subscribes: opened, checked and watched together.

Where one is lost the other goes too, so that there are two states only: the bus is here, or it is away.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import hiredis

from zene import telemetry
from zene.bus.resp import Address, Connection, Handler, Reply, connect
from zene.domain.errors import SetupError, Unavailable, ZeneError

OPEN_SECONDS = 4.0
BEAT_SECONDS = 3.0
REPLY_SECONDS = 4.0  # Redis that says nothing for so long is away
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 2.0
_MARK_SECONDS = 60
_PASSING = ("LOADING", "BUSY", "MASTERDOWN", "READONLY", "ERR max number of clients")
_FULL = ("OOM", "MISCONF", "NOREPLICAS")  # it refuses writes and still publishes

log = telemetry.logger(__name__)


class Link:
    """A Redis that is there. `mark` is a key that is written at each beat: it finds out a read-only one."""

    def __init__(self, commands: Connection, subscription: Connection, mark: str) -> None:
        self.commands = commands
        self.subscription = subscription
        self.takes_writes = True
        self._mark = mark

    async def beat(self) -> str | None:
        """Wait for a moment, then see whether both connections are alive: the reason where one is not."""
        reads = self.subscription.reads
        self.subscription.send("PING", then=None)
        either = (self.commands.lost, self.subscription.lost)
        lost, _ = await asyncio.wait(
            either, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if lost:
            return lost.pop().result()
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self.write_mark()
        except TimeoutError:
            return f"it has said nothing for {REPLY_SECONDS:g} seconds"
        except ZeneError as err:
            return err.message
        return "its subscription is silent" if self.subscription.reads == reads else None

    async def write_mark(self) -> None:
        """See whether it takes writes. One that is full is of use all the same. Raises as `_checked` does."""
        reply = await self.commands.call("SET", self._mark, 1, "EX", _MARK_SECONDS)
        self.takes_writes = not str(reply).startswith(_FULL)
        if self.takes_writes:
            _checked(reply)

    async def evicts(self) -> str | None:
        """Its policy when it is full, where that is to throw away keys of others; None where nobody knows."""
        reply = await self.commands.call("INFO", "memory")
        lines = reply.decode().splitlines() if isinstance(reply, bytes) else []
        policy = dict(line.partition(":")[::2] for line in lines).get("maxmemory_policy", "")
        return policy if policy.startswith("allkeys") else None

    def drop(self) -> None:
        """Close both at once."""
        self.commands.drop("closed")
        self.subscription.drop("closed")


async def opened(address: Address, prefix: str, channel: bytes, pushed: Handler) -> Link:
    """A Redis that can be used, its subscription following `channel`. Raises Unavailable, SetupError."""
    try:
        async with (
            asyncio.timeout(OPEN_SECONDS),
            _greeted(address) as commands,
            _greeted(address) as subscription,
        ):
            link = Link(commands, subscription, f"{prefix}:mark")
            await link.write_mark()
            subscription.pushed = pushed
            _checked(await subscription.call("SUBSCRIBE", channel))
            return link
    except TimeoutError:
        raise Unavailable(f"no answer in {OPEN_SECONDS:g} seconds") from None


async def patiently(address: Address, prefix: str, channel: bytes, pushed: Handler) -> Link:
    """The same, tried again and again until it can be done."""
    pause, told = _FIRST_PAUSE_SECONDS, ""
    while True:
        try:
            return await opened(address, prefix, channel, pushed)
        except ZeneError as err:
            if err.message != told:
                log.warning("bus.not_back", redis=address.shown, error=err.message)
                told = err.message
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
        pause = min(2 * pause, _LAST_PAUSE_SECONDS)


@asynccontextmanager
async def _greeted(address: Address) -> AsyncGenerator[Connection, None]:
    """A connection after its handshake; dropped where the block fails."""
    connection = await connect(address)
    try:
        credentials = ("AUTH", address.user or "default", address.password)
        asked = credentials if address.password else ()
        reply = _checked(await connection.call("HELLO", 2, *asked, "SETNAME", "zene"))
        _check_kind(dict(zip(reply[::2], reply[1::2], strict=True)))
        if address.database:
            _checked(await connection.call("SELECT", address.database))
        yield connection
    except BaseException:
        connection.drop("closed")
        raise


def _check_kind(server: Mapping[bytes, Any]) -> None:
    if server.get(b"mode") == b"cluster":
        raise SetupError(
            "It is a Redis Cluster, which hands every message to every node. Name a single Redis, with "
            "replicas or without."
        )
    if server.get(b"mode") == b"sentinel":
        raise SetupError("It is a Redis Sentinel, which keeps nothing. Name the Redis it watches.")
    if server.get(b"role") in (b"replica", b"slave"):
        raise Unavailable("it is a read-only replica; name its primary")


def _checked(reply: Reply) -> Reply:
    """The reply, or the error it is: Unavailable for what passes, SetupError for what a person must mend."""
    if not isinstance(reply, hiredis.ReplyError):
        return reply
    said = str(reply)
    if said.startswith(_PASSING):
        raise Unavailable(said)
    if said.startswith("NOAUTH"):
        raise SetupError(
            "It wants a password: redis://:PASSWORD@HOST, or redis://USER:PASSWORD@HOST."
        )
    if said.startswith("WRONGPASS"):
        raise SetupError("It does not accept this user and password.")
    if said.startswith("ERR unknown command"):
        raise SetupError(f"It is too old, Redis 6 is needed, or does not allow a command: {said}.")
    raise SetupError(f"It refuses: {said}.")

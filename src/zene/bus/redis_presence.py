"""Who is there, on Redis: a key a process that expires unless it is written anew, and a set of their names.

The set is only an index, so that nobody has to look through all keys; a name whose key is gone is dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from zene import telemetry
from zene.bus.base import Process
from zene.domain.errors import Unavailable

READ_SECONDS = 1.0
_NAMES_SECONDS = 3600

log = telemetry.logger(__name__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Process).decode


class _Send(Protocol):
    def __call__(self, *command: str | bytes | int) -> None: ...


class RedisPresence:
    """`send` neither waits nor fails; `read` raises Unavailable."""

    def __init__(self, prefix: str, send: _Send, read: Callable[..., Awaitable[list[Any]]]) -> None:
        self._names = f"{prefix}:here"
        self._send = send
        self._read = read

    def announce(self, process: Process, seconds: float) -> None:
        """All or nothing, so that a connection that breaks leaves no key that never expires."""
        self._send("MULTI")
        self._send("SET", self._key(process.name), _encode(process), "PX", round(seconds * 1000))
        self._send("SADD", self._names, process.name)
        self._send("EXPIRE", self._names, _NAMES_SECONDS)
        self._send("EXEC")

    def withdraw(self, name: str) -> None:
        """Drop the key; its name goes with the next look."""
        self._send("DEL", self._key(name))

    async def present(self) -> list[Process]:
        """Those whose key has not expired. Raises Unavailable."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                names = [name.decode() for name in await self._read("SMEMBERS", self._names)]
                if not names:
                    return []
                found = await self._read("MGET", *map(self._key, names))
        except TimeoutError:
            raise Unavailable(f"Redis has not answered in {READ_SECONDS:g} seconds.") from None
        if gone := [name for name, told in zip(names, found, strict=True) if told is None]:
            self._send("SREM", self._names, *gone)
        return [process for told in found if told is not None for process in _understood(told)]

    def _key(self, name: str) -> str:
        return f"{self._names}:{name}"


def _understood(told: bytes) -> list[Process]:
    try:
        return [_decode(told)]
    except msgspec.DecodeError as err:
        log.warning("bus.not_understood", error=str(err))
        return []

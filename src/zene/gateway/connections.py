"""The connection that a request came over, for an answer that has to know how it is: one that lasts, or is large."""

import asyncio
from typing import Final

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl

CONNECTION: Final = "zene.connection"  # in the scope


class Connection:
    """A client's connection. One that was left is closing as soon as the kernel says so."""

    __slots__ = ("_flow", "_transport")

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport = transport
        self._flow = flow

    @property
    def is_full(self) -> bool:
        """Whether the client does not read what was sent, so that sending more waits; otherwise it never does."""
        return self._flow.write_paused

    @property
    def is_closing(self) -> bool:
        """Whether the client has left, or was cut off."""
        return self._transport.is_closing()

    def write(self, part: bytes) -> None:
        """Send a part of an answer that goes on, at once: of one that has begun and has no length, and not while the
        connection `is_full`. Sent past the server, that costs half.
        """
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))

    async def cut_off(self) -> None:
        """Close it without waiting for what the client does not read."""
        self._transport.abort()
        await asyncio.sleep(0)  # the server learns of it, or it takes the answer for unfinished


def connection(scope: Scope) -> Connection:
    """The connection of a request."""
    found: Connection = scope[CONNECTION]
    return found

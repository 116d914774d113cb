"""What a process says of itself to the others, again and again, until it is gone."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from zene.bus.base import Bus, Process

EVERY_SECONDS = 2.0
PRESENT_SECONDS = 8.0  # after its last word a process is taken for gone


class Self(Struct, frozen=True, kw_only=True):
    """What does not change of a process while it runs. `name` is nobody else's."""

    name: str
    host: str
    version: str
    started_at: int


def this_process(name: str | None = None) -> Self:
    """This process, under a name that it has already or a new one."""
    host = socket.gethostname()
    return Self(
        name=name or f"{host}-{secrets.token_hex(4)}",
        host=host,
        version=version("zene"),
        started_at=time.time_ns() // 1_000_000,
    )


@asynccontextmanager
async def announced(bus: "Bus", look: Callable[[], "Process"]) -> AsyncGenerator[None, None]:
    """Tell the installation what `look` says, for as long as the context is entered."""
    announcing = asyncio.create_task(_announce(bus, look), name="presence")
    try:
        yield
    finally:
        announcing.cancel()
        await asyncio.wait((announcing,))
        await bus.withdraw(look().name)


async def _announce(bus: "Bus", look: Callable[[], "Process"]) -> None:
    while True:
        await bus.announce(look(), PRESENT_SECONDS)
        await asyncio.sleep(EVERY_SECONDS)

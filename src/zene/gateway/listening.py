"""The socket that the gateway will serve, bound before anything is made that a failed start would have to undo."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from zene.domain.errors import SetupError

BACKLOG: Final = 2048


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at `host` and `port` (0 takes a free one), closed at the end. Who connects
    before somebody serves it waits. Raises SetupError where the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as err:
        raise SetupError(
            f"Cannot listen on {host} port {port}: {_reason(err)}. Choose another port with --port."
        ) from err
    with listener:
        yield listener


def _reason(err: OSError) -> str:
    """What the system said, without the address, which Python's asyncio and socket put behind it."""
    return (err.strerror or str(err)).partition(" (")[0]

"""What the host sends to a command's stdin: taken as fast as the command reads, granted as it is taken."""

from __future__ import annotations

import posix
import select

from zene.sandbox.runner.frames import COUNT, TAKEN, Wire


class Input:
    """The write end of a command's stdin. Data that nobody reads any more is taken and dropped."""

    def __init__(self, wire: Wire, epoll: select.epoll, channel: int, fd: int) -> None:
        posix.set_blocking(fd, False)
        self.fd = fd
        self.is_open = True
        self._wire = wire
        self._epoll = epoll
        self._channel = channel
        self._pending = bytearray()
        self._ended = False
        self._watched = False

    def feed(self, data: bytes) -> None:
        """Take more; no data is the end."""
        self._ended = self._ended or not data
        self._pending += data
        self.pour()

    def pour(self) -> None:
        """Write what the pipe takes."""
        try:
            count = posix.write(self.fd, self._pending) if self._pending else 0
        except BlockingIOError:
            count = 0
        except BrokenPipeError:
            count = len(self._pending)
        if count:
            del self._pending[:count]
            self._wire.send(TAKEN, self._channel, COUNT.pack(count))
        self._watch(wanted=bool(self._pending))
        if self._ended and not self._pending:
            self.close()

    def close(self) -> None:
        """Write no more. Twice is harmless."""
        if self.is_open:
            self._watch(wanted=False)
            self.is_open = False
            posix.close(self.fd)

    def _watch(self, *, wanted: bool) -> None:
        if wanted and not self._watched:
            self._epoll.register(self.fd, select.EPOLLOUT)
        elif self._watched and not wanted:
            self._epoll.unregister(self.fd)
        self._watched = wanted

"""What commands write, on its way to the host: in bulk as fast as it comes, in dribbles every 20 ms.

The pipe itself gathers small writes: after a small read it is left alone for 20 ms. A pipe whose call has
used up its window is left alone until the host grants more, and so the command waits.
"""

from __future__ import annotations

import fcntl
import posix
import select
import time

from zene.sandbox.runner.frames import CHUNK, WINDOW, Wire

COALESCE_SECONDS = 0.02

_BULK = 32 * 1024
_WIDE_PIPE = 1024 * 1024
_ABANDONED = 64
_REMEMBERED_HALF = 32 * 1024
_F_SETPIPE_SZ = 1031


class Memory:
    """The first and last part of a call's output, and how it ended."""

    def __init__(self) -> None:
        self.exit = b""
        self.askers: list[int] = []
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Remember what was written."""
        self._size += len(data)
        room = _REMEMBERED_HALF - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * _REMEMBERED_HALF:
            del self._tail[:-_REMEMBERED_HALF]

    def answer(self) -> bytes:
        """The exit and what is remembered of the output."""
        tail = self._tail[-_REMEMBERED_HALF:]
        missing = self._size - len(self._head) - len(tail)
        mark = f"\n[... {missing} bytes left out ...]\n".encode() if missing else b""
        return self.exit + self._head + mark + tail


class Account:
    """What a call may still send."""

    def __init__(self, channel: int, limit: int) -> None:
        self.channel = channel
        self.limit = limit
        self.window = WINDOW
        self.dropped = 0
        self.memory: Memory | None = None


class Stream:
    """The read end of a pipe that a command writes to."""

    def __init__(self, account: Account, kind: int, fd: int) -> None:
        self.account = account
        self.kind = kind
        self.fd = fd
        self.read_at: float | None = None  # when to look again, while the pipe gathers small writes
        self.watched = False
        self.is_open = True
        self.rest = _WIDE_PIPE  # most that is read after the main process has ended


class Outputs:
    """All pipes that are read."""

    def __init__(self, wire: Wire, epoll: select.epoll) -> None:
        self._wire = wire
        self._epoll = epoll
        self._wide: set[int] = set()
        self._abandoned: dict[int, None] = {}

    def open(self, account: Account, kind: int, fd: int) -> Stream:
        """Begin to forward a pipe."""
        posix.set_blocking(fd, False)
        stream = Stream(account, kind, fd)
        self._watch(stream)
        return stream

    def emit(self, account: Account, kind: int, data: bytes) -> None:
        """Send what was written; beyond the limit it is counted and dropped."""
        if account.memory:
            account.memory.add(data)
        sent = data[: account.limit]
        account.dropped += len(data) - len(sent)
        if sent:
            account.limit -= len(sent)
            account.window -= len(sent)
            self._wire.send(kind, account.channel, sent)

    def forward(self, stream: Stream) -> None:
        """Send what is there. Few bytes: look again in 20 ms, so that the next ones come together."""
        data = self._take(stream) if stream.account.window > 0 else b""
        if data is None or not stream.is_open:
            return
        if stream.account.window <= 0:
            self._unwatch(stream)
        elif len(data) < _BULK:
            self._unwatch(stream)
            stream.read_at = time.monotonic() + COALESCE_SECONDS
        else:
            self._widen(stream.fd)
            self._watch(stream)

    def resume(self, stream: Stream) -> None:
        """The window is open again."""
        if not stream.watched and stream.read_at is None:
            self.forward(stream)

    def drain(self, stream: Stream) -> bool:
        """Send what the pipe holds, as far as the window allows; False when there may be more."""
        while stream.rest > 0:
            if stream.account.window <= 0:
                self._unwatch(stream)
                return False
            data = self._take(stream)
            if not data:
                return True
            stream.rest -= len(data)
        return True

    def close(self, stream: Stream) -> None:
        """Read it no more."""
        self._unwatch(stream)
        self._wide.discard(stream.fd)
        stream.is_open = False
        posix.close(stream.fd)

    def abandon(self, stream: Stream) -> None:
        """A process left behind may go on writing: it is read and dropped, so that it goes on working."""
        self._unwatch(stream)
        stream.is_open = False
        self._abandoned[stream.fd] = None
        self._epoll.register(stream.fd, select.EPOLLIN)
        if len(self._abandoned) > _ABANDONED:
            self._forget(next(iter(self._abandoned)))

    def discard(self, fd: int) -> None:
        """Drop what an abandoned pipe holds."""
        if fd in self._abandoned:
            try:
                if not posix.read(fd, CHUNK):
                    self._forget(fd)
            except BlockingIOError:
                return

    def _take(self, stream: Stream) -> bytes | None:
        """Read once and send: the bytes, none at the end, None when there is nothing to read now."""
        try:
            data = posix.read(stream.fd, min(CHUNK, stream.account.window))
        except BlockingIOError:
            self._watch(stream)
            return None
        if data:
            self.emit(stream.account, stream.kind, data)
        else:
            self.close(stream)
        return data

    def _watch(self, stream: Stream) -> None:
        stream.read_at = None
        if not stream.watched:
            stream.watched = True
            self._epoll.register(stream.fd, select.EPOLLIN)

    def _unwatch(self, stream: Stream) -> None:
        stream.read_at = None
        if stream.watched:
            stream.watched = False
            self._epoll.unregister(stream.fd)

    def _widen(self, fd: int) -> None:
        if fd not in self._wide:
            self._wide.add(fd)
            try:
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _WIDE_PIPE)
            except OSError:  # over the user's share of pipe memory: only slower
                return

    def _forget(self, fd: int) -> None:
        del self._abandoned[fd]
        self._wide.discard(fd)
        self._epoll.unregister(fd)
        posix.close(fd)

"""The supervisor: PID 1 of a sandbox, one loop over the host's stream, pipes and ended processes.

It keeps itself out of its commands' reach (not dumpable, so its memory, environment and files cannot be
opened). Each sandbox pays for its imports, so they are the parts in C of `os`, `signal` and `ctypes`: the
latter alone would take 3 ms. When the host's stream closes it ends, and the kernel ends everything else in
the sandbox.
"""

from __future__ import annotations

import _ctypes
import _signal  # type: ignore[import-not-found]  # it has no stubs
import posix
import select
import time

from zene.sandbox.runner import frames
from zene.sandbox.runner.frames import Wire
from zene.sandbox.runner.input import Input
from zene.sandbox.runner.output import Account, Memory, Outputs, Stream
from zene.sandbox.runner.processes import Sessions, Spawner, is_folder, now_in_ticks

LINGER_SECONDS = 0.15  # of the 200 ms the contract allows after the main process has ended

_REMEMBERED = 64
_MANY_FDS = 1 << 20
_PR_SET_DUMPABLE = 4


class Call:
    """One command: its main process, its pipes and what is left of its time."""

    def __init__(self, channel: int, timeout_ms: int, limit: int) -> None:
        self.channel = channel
        self.account = Account(channel, limit)
        self.began = time.monotonic()
        self.began_in_ticks = now_in_ticks()
        self.deadline = self.began + timeout_ms / 1000
        self.pid = 0
        self.code: int | None = None
        self.killed = False
        self.timed_out = False
        self.linger_until = 0.0
        self.streams: list[Stream] = []
        self.input: Input | None = None

    def moments(self) -> list[float]:
        """When something is due if nothing happens before."""
        moments = [stream.read_at for stream in self.streams if stream.read_at is not None]
        if self.code is None and not self.killed:
            moments.append(self.deadline)
        if self.code is not None and self.account.window > 0:
            moments.append(self.linger_until)
        return moments


class Supervisor:
    """The loop and all calls."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._epoll = select.epoll()
        self._outputs = Outputs(wire, self._epoll)
        self._spawner = Spawner()
        self._sessions = Sessions()
        self._calls: dict[int, Call] = {}
        self._by_pid: dict[int, Call] = {}
        self._by_fd: dict[int, Stream | Input] = {}
        self._memories: dict[bytes, Memory] = {}
        self._wake_fd = self._watch_children()
        self._epoll.register(wire.source, select.EPOLLIN)
        self._handlers = {
            frames.START: self._start,
            frames.STDIN: self._feed,
            frames.KILL: self._cancel,
            frames.ASK: self._ask,
            frames.GRANT: self._grant,
        }

    def _watch_children(self) -> int:
        reader, writer = posix.pipe()
        posix.set_blocking(reader, False)
        posix.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.signal(
            _signal.SIGINT, _signal.SIG_DFL
        )  # PID 1 cannot be sent what is left at its default
        self._epoll.register(reader, select.EPOLLIN)
        return reader

    def serve(self) -> None:
        """Run until the host closes the stream."""
        self._wire.send(frames.HELLO, 0)
        while True:
            for fd, _ in self._epoll.poll(self._patience()):
                if fd == self._wire.source:
                    received = self._wire.receive()
                    if received is None:
                        return
                    for kind, channel, payload in received:
                        self._handlers[kind](channel, payload)
                elif fd == self._wake_fd:
                    self._reap()
                else:
                    self._ready(fd)
            self._tick()

    def _patience(self) -> float | None:
        moments = [moment for call in self._calls.values() for moment in call.moments()]
        return max(min(moments) - time.monotonic(), 0) + 0.0005 if moments else None

    def _tick(self) -> None:
        now = time.monotonic()
        for call in list(self._calls.values()):
            for stream in list(call.streams):
                if stream.read_at is not None and stream.read_at <= now:
                    self._forward(stream, call)
            if call.code is not None:
                if call.linger_until <= now and call.channel in self._calls:
                    self._settle(call)
            elif not call.killed and call.deadline <= now:
                call.timed_out = True
                self._kill(call)

    def _ready(self, fd: int) -> None:
        entry = self._by_fd.get(fd)
        if isinstance(entry, Stream):
            self._forward(entry, self._calls[entry.account.channel])
        elif entry is not None:
            entry.pour()
            self._drop_if_closed(entry)
        else:
            self._outputs.discard(fd)

    # Starting

    def _start(self, channel: int, payload: bytes) -> None:
        timeout_ms, limit, argc, envc, flags = frames.START_FIELDS.unpack_from(payload)
        call_id, cwd, *rest = payload[frames.START_FIELDS.size :].split(b"\0")
        call = self._calls[channel] = Call(channel, timeout_ms, limit)
        if call_id:
            call.account.memory = self._remember(call_id)
        pipes = [(frames.STDOUT, *posix.pipe())]
        if flags & frames.SPLIT:
            pipes.append((frames.STDERR, *posix.pipe()))
        stdin = posix.pipe() if flags & frames.HAS_STDIN else None
        stdio = (stdin[0] if stdin else None, pipes[0][2], pipes[-1][2])
        environ = dict(_pair(entry) for entry in rest[argc : argc + envc])
        try:
            posix.chdir(cwd)
            call.pid = self._spawner.spawn(rest[:argc], environ, stdio)
        except OSError as err:
            what = rest[0] if is_folder(cwd) else b"a command in " + cwd
            self._refuse(call, what, err, pipes[-1][0])
        self._adopt(call, pipes, stdin)

    def _remember(self, call_id: bytes) -> Memory:
        while len(self._memories) >= _REMEMBERED:
            del self._memories[next(iter(self._memories))]
        memory = self._memories[call_id] = Memory()
        return memory

    def _refuse(self, call: Call, what: bytes, err: OSError, kind: int) -> None:
        text = b"cannot run %s: %s\n" % (what, posix.strerror(err.errno or 0).encode())
        self._outputs.emit(call.account, kind, text)
        call.code = 127 if isinstance(err, FileNotFoundError) else 126

    def _adopt(
        self, call: Call, pipes: list[tuple[int, int, int]], stdin: tuple[int, int] | None
    ) -> None:
        for kind, reader, writer in pipes:
            posix.close(writer)
            stream = self._by_fd[reader] = self._outputs.open(call.account, kind, reader)
            call.streams.append(stream)
        if stdin:
            posix.close(stdin[0])
            call.input = Input(self._wire, self._epoll, call.channel, stdin[1])
            self._by_fd[stdin[1]] = call.input
        if call.code is None:
            self._by_pid[call.pid] = call
            self._sessions.add(call.pid)
        else:
            self._settle(call)

    # Streams

    def _forward(self, stream: Stream, call: Call) -> None:
        self._outputs.forward(stream)
        self._drop_closed(call)
        if call.code is not None and not call.streams:
            self._settle(call)

    def _drop_closed(self, call: Call) -> None:
        for stream in call.streams:
            if not stream.is_open:
                self._by_fd.pop(stream.fd, None)
        call.streams = [stream for stream in call.streams if stream.is_open]

    def _drop_if_closed(self, entry: Input) -> None:
        if not entry.is_open:
            self._by_fd.pop(entry.fd, None)

    def _feed(self, channel: int, data: bytes) -> None:
        call = self._calls.get(channel)
        if call and call.input and call.input.is_open:
            call.input.feed(data)
            self._drop_if_closed(call.input)

    def _grant(self, channel: int, payload: bytes) -> None:
        call = self._calls.get(channel)
        if call is None:
            return
        call.account.window += frames.COUNT.unpack(payload)[0]
        if call.code is not None:
            self._settle(call)
            return
        for stream in call.streams:
            self._outputs.resume(stream)
        self._drop_closed(call)

    # Ending

    def _reap(self) -> None:
        posix.read(self._wake_fd, 4096)
        while True:
            try:
                pid, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            call = self._by_pid.pop(pid, None)
            if call is not None:
                call.code = posix.waitstatus_to_exitcode(status)
                call.linger_until = time.monotonic() + LINGER_SECONDS
                self._settle(call)

    def _settle(self, call: Call) -> None:
        """The main process has ended: send what the pipes hold, then wait shortly for other writers."""
        drained = [self._outputs.drain(stream) for stream in call.streams]
        self._drop_closed(call)
        over = call.killed or not call.streams or time.monotonic() >= call.linger_until
        if over and all(drained):
            self._finish(call)

    def _finish(self, call: Call) -> None:
        duration_ms = int((time.monotonic() - call.began) * 1000)
        flags = frames.TIMED_OUT if call.timed_out else 0
        account = call.account
        payload = frames.EXIT_FIELDS.pack(call.code, duration_ms, account.dropped, flags)
        del self._calls[call.channel]
        if call.input:
            call.input.close()
            self._by_fd.pop(call.input.fd, None)
        for stream in call.streams:
            self._by_fd.pop(stream.fd, None)
            self._outputs.abandon(stream)
        self._wire.send(frames.EXIT, call.channel, payload)
        if account.memory:
            account.memory.exit = payload
            for asker in account.memory.askers:
                self._wire.send(frames.OUTCOME, asker, account.memory.answer())
            account.memory.askers.clear()

    def _ask(self, channel: int, call_id: bytes) -> None:
        memory = self._memories.get(call_id)
        if memory is None:
            self._wire.send(frames.OUTCOME, channel)
        elif memory.exit:
            self._wire.send(frames.OUTCOME, channel, memory.answer())
        else:
            memory.askers.append(channel)

    def _cancel(self, channel: int, _: bytes) -> None:
        call = self._calls.get(channel)
        if call is not None:
            self._kill(call)
            if call.code is not None:
                self._finish(call)

    def _kill(self, call: Call) -> None:
        call.killed = True
        self._sessions.kill(call.pid, call.began_in_ticks)


def _pair(entry: bytes) -> tuple[bytes, bytes]:
    name, _, value = entry.partition(b"=")
    return name, value


def _hide() -> None:
    """From all that runs here: nothing may open this process's memory or files, or trace it."""
    prctl = _ctypes.dlsym(_ctypes.dlopen("libc.so.6", 0), "prctl")
    if _ctypes.call_function(prctl, (_PR_SET_DUMPABLE, 0, 0, 0, 0)):
        raise OSError("the runner cannot hide from its commands")


def main() -> None:
    """Serve the host on fds 0 and 1; whatever else was left open on the way here is closed."""
    posix.closerange(3, _MANY_FDS)
    supervisor = Supervisor(Wire(0, 1))
    _hide()
    supervisor.serve()

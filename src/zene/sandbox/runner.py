"""The supervisor inside a sandbox: PID 1, one file, only the standard library, from Python 3.9 on.

It takes commands over one byte stream and sends back what they write, so that a command costs a process
and nothing else. It keeps itself out of its commands' reach (not dumpable, so its memory, environment and
files cannot be opened), and it trusts its host; the host trusts nothing of what it sends.

A frame is a kind, the number of a call and a length (`HEADER`), then the payload. Both directions have a
window of bytes that the other side has not yet granted again, so neither can be made to hold more.
"""
# ruff: noqa: PTH

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import sys
import time

HEADER = struct.Struct("<BII")
START_FIELDS = struct.Struct("<IQHHB")  # timeout in ms, output limit, number of argv and env, flags
EXIT_FIELDS = struct.Struct("<iIQB")  # code, duration in ms, dropped bytes, flags
COUNT = struct.Struct("<I")

INIT, START, STDIN, KILL, ASK, GRANT = 1, 2, 3, 4, 5, 6  # from the host
HELLO, STDOUT, STDERR, EXIT, OUTCOME, TAKEN = 1, 2, 3, 4, 5, 6  # to the host
SPLIT, HAS_STDIN = 1, 2  # flags of START
TIMED_OUT = 1  # flag of EXIT

WINDOW = 256 * 1024
STDIN_WINDOW = 64 * 1024
CHUNK = 64 * 1024
BULK = 32 * 1024
WIDE_PIPE = 1024 * 1024
COALESCE_SECONDS = 0.02
LINGER_SECONDS = 0.15  # of the 200 ms the contract allows after the main process has ended
REMEMBERED = 64
REMEMBERED_HALF = 32 * 1024
ABANDONED = 64
KILL_ROUNDS = 20

_F_SETPIPE_SZ = 1031
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 4, 38, 22, 2
_EPOLLIN = select.EPOLLIN


class Memory:
    """The first and last part of a call's output, and how it ended; what `ASK` answers."""

    def __init__(self):
        self.head = bytearray()
        self.tail = bytearray()
        self.size = 0
        self.exit = b""
        self.askers = []

    def add(self, data):
        self.size += len(data)
        room = REMEMBERED_HALF - len(self.head)
        self.head += data[:room]
        self.tail += data[max(room, 0) :]
        if len(self.tail) > 2 * REMEMBERED_HALF:
            del self.tail[:-REMEMBERED_HALF]

    def text(self):
        tail = self.tail[-REMEMBERED_HALF:]
        missing = self.size - len(self.head) - len(tail)
        mark = b"\n[... %d bytes left out ...]\n" % missing if missing else b""
        return bytes(self.head + mark + tail)


class Stream:
    """The read end of a pipe that a command writes to."""

    def __init__(self, call, kind, fd):
        self.call = call
        self.kind = kind
        self.fd = fd
        self.read_at = None  # when to look again, while the pipe itself gathers small writes
        self.watched = False
        self.wide = False
        self.rest = WIDE_PIPE  # most that is read after the main process has ended


class Input:
    """The write end of a command's stdin. Data that nobody reads any more is taken and dropped."""

    def __init__(self, channel, fd):
        self.channel = channel
        self.fd = fd
        self.pending = bytearray()
        self.ended = False
        self.watched = False


class Call:
    """One command: its main process, its pipes and what is left of its caps."""

    def __init__(self, channel, timeout_ms, limit):
        self.channel = channel
        self.started = time.monotonic()
        self.started_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)
        self.deadline = self.started + timeout_ms / 1000
        self.limit = limit
        self.window = WINDOW
        self.dropped = 0
        self.pid = 0
        self.code = None
        self.killed = False
        self.timed_out = False
        self.linger_until = None
        self.streams = []
        self.input = None
        self.memory = None


class Runner:
    """The event loop and the state of all calls."""

    def __init__(self, source, sink):
        self.source = source
        self.sink = sink
        self.received = bytearray()
        self.calls = {}
        self.by_pid = {}
        self.by_fd = {}
        self.sessions = set()
        self.memories = {}
        self.abandoned = {}
        self.epoll = select.epoll()
        self.score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        self.wake_fd, wake = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # PID 1 never dies of a signal left at its default
        self.epoll.register(source, _EPOLLIN)
        self.epoll.register(self.wake_fd, _EPOLLIN)
        self.handlers = {
            INIT: self.init,
            START: self.start,
            STDIN: self.feed,
            KILL: self.cancel,
            ASK: self.ask,
            GRANT: self.grant,
        }

    def serve(self):
        """Run until the host closes the stream; then PID 1 ends, and everything in the sandbox with it."""
        self.send(HELLO, 0)
        while True:
            for fd, _ in self.epoll.poll(self.patience()):
                if fd == self.source:
                    if not self.receive():
                        return
                elif fd == self.wake_fd:
                    self.reap()
                else:
                    self.ready(fd)
            self.tick()

    def patience(self):
        moments = []
        for call in self.calls.values():
            if call.code is None and not call.killed:
                moments.append(call.deadline)
            if call.linger_until is not None and call.window > 0:
                moments.append(call.linger_until)
            moments.extend(s.read_at for s in call.streams if s.read_at is not None)
        return max(min(moments) - time.monotonic(), 0) + 0.0005 if moments else None

    def tick(self):
        now = time.monotonic()
        for call in list(self.calls.values()):
            for stream in list(call.streams):
                if stream.read_at is not None and stream.read_at <= now:
                    self.forward(stream)
            if call.code is None and not call.killed and call.deadline <= now:
                call.timed_out = True
                self.kill_tree(call)
            if call.linger_until is not None and call.linger_until <= now:
                self.settle(call)

    # Frames

    def send(self, kind, channel, payload=b""):
        data = memoryview(HEADER.pack(kind, channel, len(payload)) + payload)
        while data:
            data = data[os.write(self.sink, data) :]

    def receive(self):
        data = os.read(self.source, 2 * CHUNK)
        self.received += data
        while len(self.received) >= HEADER.size:
            kind, channel, length = HEADER.unpack_from(self.received)
            end = HEADER.size + length
            if len(self.received) < end:
                break
            payload = bytes(self.received[HEADER.size : end])
            del self.received[:end]
            self.handlers[kind](channel, payload)
        return bool(data)

    def init(self, _, program):
        """Load the filter, which no command can take off again, and hide from all that runs here."""
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
        for option, value, argument in (
            (_PR_SET_DUMPABLE, 0, None),
            (_PR_SET_NO_NEW_PRIVS, 1, None),
            (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header),
        ):
            if libc.prctl(option, ctypes.c_ulong(value), argument, None, None):
                raise OSError(ctypes.get_errno(), "prctl %d" % option)

    # Starting

    def start(self, channel, payload):
        timeout_ms, limit, argc, envc, flags = START_FIELDS.unpack_from(payload)
        call_id, cwd, *rest = payload[START_FIELDS.size :].split(b"\0")
        call = self.calls[channel] = Call(channel, timeout_ms, limit)
        if call_id:
            call.memory = self.remember(call_id)
        pipes = [(STDOUT, *os.pipe())]
        if flags & SPLIT:
            pipes.append((STDERR, *os.pipe()))
        stdin = os.pipe() if flags & HAS_STDIN else None
        try:
            self.spawn(call, cwd, rest[:argc], rest[argc : argc + envc], pipes, stdin)
        except OSError as err:
            self.refuse(call, rest[0], cwd, err, pipes, stdin)
        else:
            self.adopt(call, pipes, stdin)

    def remember(self, call_id):
        while len(self.memories) >= REMEMBERED:
            del self.memories[next(iter(self.memories))]
        memory = self.memories[call_id] = Memory()
        return memory

    def spawn(self, call, cwd, argv, env, pipes, stdin):
        os.chdir(cwd)
        environ = dict(entry.split(b"=", 1) for entry in env)
        actions = [
            (os.POSIX_SPAWN_DUP2, pipes[0][2], 1),
            (os.POSIX_SPAWN_DUP2, pipes[-1][2], 2),
            (os.POSIX_SPAWN_DUP2, stdin[0], 0)
            if stdin
            else (os.POSIX_SPAWN_OPEN, 0, b"/dev/null", os.O_RDONLY, 0),
        ]
        os.pwrite(self.score, b"500", 0)  # children inherit it: short of memory, commands go first
        try:
            call.pid = os.posix_spawn(
                find(argv[0], environ.get(b"PATH", b"")),
                argv,
                environ,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        finally:
            os.pwrite(self.score, b"0", 0)

    def adopt(self, call, pipes, stdin):
        self.by_pid[call.pid] = call
        self.sessions.add(call.pid)
        for kind, reader, writer in pipes:
            os.close(writer)
            os.set_blocking(reader, False)
            stream = Stream(call, kind, reader)
            call.streams.append(stream)
            self.by_fd[reader] = stream
            self.watch(stream)
        if stdin:
            os.close(stdin[0])
            os.set_blocking(stdin[1], False)
            call.input = self.by_fd[stdin[1]] = Input(call.channel, stdin[1])

    def refuse(self, call, program, cwd, err, pipes, stdin):
        for fd in [fd for pipe in pipes for fd in pipe[1:]] + list(stdin or ()):
            os.close(fd)
        what = program if os.path.isdir(cwd) else b"it in " + cwd
        text = b"cannot run %s: %s\n" % (what, os.strerror(err.errno or 0).encode())
        self.emit(call, pipes[-1][0], text)
        call.code = 127 if isinstance(err, FileNotFoundError) else 126
        self.finish(call)

    # Output

    def watch(self, stream):
        stream.watched = True
        stream.read_at = None
        self.epoll.register(stream.fd, _EPOLLIN)

    def unwatch(self, stream):
        if stream.watched:
            stream.watched = False
            self.epoll.unregister(stream.fd)

    def ready(self, fd):
        stream = self.by_fd.get(fd)
        if isinstance(stream, Stream):
            self.forward(stream)
        elif stream is not None:
            self.pour(stream)
        elif fd in self.abandoned and not discard(fd):
            self.forget(fd)

    def forward(self, stream):
        """Send what is there. Few bytes: look again in 20 ms, so that the next ones come together."""
        call = stream.call
        data = self.take(stream) if call.window > 0 else b""
        if data is None:
            return
        if call.window <= 0:
            self.unwatch(stream)
            stream.read_at = None
        elif not data:
            self.close(stream)
            if call.code is not None:
                self.settle(call)
        elif len(data) < BULK:
            self.unwatch(stream)
            stream.read_at = time.monotonic() + COALESCE_SECONDS
        else:
            self.widen(stream)
            if not stream.watched:
                self.watch(stream)

    def take(self, stream):
        """Read once and send: the bytes, none at the end, None when there is nothing to read now."""
        try:
            data = os.read(stream.fd, min(CHUNK, stream.call.window))
        except BlockingIOError:
            if not stream.watched:
                self.watch(stream)
            return None
        if data:
            self.emit(stream.call, stream.kind, data)
        return data

    def widen(self, stream):
        if not stream.wide:
            stream.wide = True
            try:
                import fcntl  # noqa: PLC0415 - only a command that writes much pays for it

                fcntl.fcntl(stream.fd, _F_SETPIPE_SZ, WIDE_PIPE)
            except OSError:
                pass  # over the user's share of pipe memory: slower, not wrong

    def emit(self, call, kind, data):
        if call.memory:
            call.memory.add(data)
        if len(data) > call.limit:
            call.dropped += len(data) - call.limit
            data = data[: call.limit]
        if data:
            call.limit -= len(data)
            call.window -= len(data)
            self.send(kind, call.channel, data)

    def grant(self, channel, payload):
        call = self.calls.get(channel)
        if call is None:
            return
        call.window += COUNT.unpack(payload)[0]
        if call.code is not None:
            self.settle(call)
            return
        for stream in list(call.streams):
            if not stream.watched and stream.read_at is None:
                self.forward(stream)

    def close(self, stream):
        self.unwatch(stream)
        stream.call.streams.remove(stream)
        del self.by_fd[stream.fd]
        os.close(stream.fd)

    # Input

    def feed(self, channel, data):
        call = self.calls.get(channel)
        entry = call.input if call else None
        if entry is None:
            return
        entry.ended = entry.ended or not data
        entry.pending += data
        self.pour(entry)

    def pour(self, entry):
        try:
            count = os.write(entry.fd, entry.pending) if entry.pending else 0
        except BlockingIOError:
            count = 0
        except BrokenPipeError:
            count = len(entry.pending)
        if count:
            del entry.pending[:count]
            self.send(TAKEN, entry.channel, COUNT.pack(count))
        if entry.watched != bool(entry.pending):
            entry.watched = not entry.watched
            if entry.watched:
                self.epoll.register(entry.fd, select.EPOLLOUT)
            else:
                self.epoll.unregister(entry.fd)
        if entry.ended and not entry.pending:
            self.end_input(self.calls[entry.channel])

    def end_input(self, call):
        if call.input:
            if call.input.watched:
                self.epoll.unregister(call.input.fd)
            del self.by_fd[call.input.fd]
            os.close(call.input.fd)
            call.input = None

    # Ending

    def reap(self):
        os.read(self.wake_fd, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            call = self.by_pid.pop(pid, None)
            if call is not None:
                call.code = os.waitstatus_to_exitcode(status)
                call.linger_until = time.monotonic() + LINGER_SECONDS
                self.settle(call)

    def settle(self, call):
        """The main process has ended: send what the pipes hold, then wait shortly for other writers."""
        blocked = [stream for stream in list(call.streams) if not self.drain(stream)]
        late = time.monotonic() >= call.linger_until
        if not blocked and (late or call.killed or not call.streams):
            self.finish(call)

    def drain(self, stream):
        """Send what one pipe holds, as far as the window allows; False when there may be more."""
        while stream.rest > 0:
            if stream.call.window <= 0:
                return False
            data = self.take(stream)
            if data is None:
                return True
            if not data:
                self.close(stream)
                return True
            stream.rest -= len(data)
        return True

    def finish(self, call):
        duration_ms = int((time.monotonic() - call.started) * 1000)
        flags = TIMED_OUT if call.timed_out else 0
        payload = EXIT_FIELDS.pack(call.code, duration_ms, call.dropped, flags)
        del self.calls[call.channel]
        self.end_input(call)
        for stream in list(call.streams):
            self.abandon(stream)
        self.send(EXIT, call.channel, payload)
        if call.memory:
            call.memory.exit = payload
            for asker in call.memory.askers:
                self.send(OUTCOME, asker, payload + call.memory.text())
            call.memory.askers.clear()

    def abandon(self, stream):
        """A process left behind may go on writing: it is read and dropped, so that it goes on working."""
        self.unwatch(stream)
        del self.by_fd[stream.fd]
        self.abandoned[stream.fd] = None
        self.epoll.register(stream.fd, _EPOLLIN)
        if len(self.abandoned) > ABANDONED:
            self.forget(next(iter(self.abandoned)))

    def forget(self, fd):
        del self.abandoned[fd]
        self.epoll.unregister(fd)
        os.close(fd)

    def ask(self, channel, call_id):
        memory = self.memories.get(call_id)
        if memory is None:
            self.send(OUTCOME, channel)
        elif memory.exit:
            self.send(OUTCOME, channel, memory.exit + memory.text())
        else:
            memory.askers.append(channel)

    # Killing

    def cancel(self, channel, _):
        call = self.calls.get(channel)
        if call is None:
            return
        if call.code is None:
            self.kill_tree(call)
        else:
            self.finish(call)

    def kill_tree(self, call):
        """Kill all that the call began. What forks faster than we look is ended by one signal to all."""
        call.killed = True
        seen = set()
        for _ in range(KILL_ROUNDS):
            found = self.descendants(call) - seen
            if not found:
                return
            for pid in found:
                signal_one(pid)
            seen |= found
        signal_one(-1)

    def descendants(self, call):
        """The call's session, its children, and every newer process without a parent that is nobody else's."""
        table = processes()
        sessions = {entry[1] for entry in table.values()}
        self.sessions &= sessions | set(self.by_pid)
        return {pid for pid in table if self.belongs(pid, table, call)}

    def belongs(self, pid, table, call):
        while True:
            parent, session, started = table[pid]
            if session == call.pid:
                return True
            if session in self.sessions or started < call.started_ticks:
                return False
            if parent not in table or parent == 1:
                return True
            pid = parent


def processes():
    """Every process of the sandbox but PID 1 and zombies: pid → (parent, session, start in ticks)."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it ended while we looked
                continue
            if fields[0] not in b"ZX":
                table[int(name)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def signal_one(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def discard(fd):
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return b" "


def find(program, path):
    """Where the program is, by the command's own PATH."""
    if b"/" not in program:
        for folder in path.split(b":"):
            full = folder + b"/" + program
            if os.access(full, os.X_OK) and not os.path.isdir(full):
                return full
    return program


if __name__ == "__main__":
    Runner(0, 1).serve()
    sys.exit()

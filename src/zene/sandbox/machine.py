"""One running sandbox under bubblewrap: how it is started, used and ended.

Its first frame comes with the kernel's word for who sent it, so the process whose namespaces are entered is
certainly ours. It is dead when bubblewrap's outermost process is: PID 1 goes before that, and takes all
others with it.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from zene.domain.errors import SandboxError, SandboxGone, SandboxUnavailable
from zene.sandbox import confine, privileged, syscalls
from zene.sandbox.base import Command, Exit, Limits, Outcome, Output, Spec
from zene.sandbox.cgroups import Group, oom_kills
from zene.sandbox.client import Call, Client, Frame, Remembered
from zene.sandbox.launch import Launcher, readable
from zene.sandbox.runner import frames
from zene.sandbox.slots import Slot, take_slot

START_SECONDS = 30.0
END_SECONDS = 5.0
_GRACE_SECONDS = 5.0  # the runner ends a command on time; one that has not answered by then is lost
_UNCAPPED_FILE_BYTES = 4 << 30  # of a single file, where nothing caps the disk
_RUNNER_NICE = -10
_CREDENTIALS = struct.Struct("iII")


class Host(Struct, frozen=True, kw_only=True):
    """What all sandboxes of a provider share. As root each gets a host user and detached folders."""

    launcher: Launcher
    folder: Path
    is_root: bool
    caps_disk: bool


@dataclass
class Held:
    """What one sandbox holds on the host, until `end`."""

    group: Group | None
    slot: Slot | None
    outer: int | None = None  # pidfd of bubblewrap's outermost process
    inner: int | None = None  # pidfd of PID 1
    oom_count: int | None = None
    complaints: int | None = None  # what bubblewrap and the runner write to stderr
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def kill(self) -> None:
        """Send SIGKILL to PID 1, with which all of it ends; the outermost process ends after it."""
        fd = self.outer if self.inner is None else self.inner
        if fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)

    def complaint(self) -> str:
        """What was written to stderr so far, to say why it ended."""
        if self.complaints is None:
            return ""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.complaints, 4096).decode(errors="replace").strip()
        return ""

    async def end(self) -> None:
        """Kill it and give everything back. Twice is harmless. Raises SandboxError if it will not die."""
        async with self.turn:
            self.kill()
            if self.outer is not None:
                await _died(self.outer)
            if self.group is not None:
                await kill_group(self.group)
            for fd in (self.outer, self.inner, self.complaints, self.oom_count):
                if fd is not None:
                    os.close(fd)
            if self.slot is not None:
                self.slot.release()
            self.outer = self.inner = self.complaints = self.oom_count = None
            self.group = self.slot = None


async def kill_group(group: Group) -> None:
    """Kill and remove a group, whoever made it. Raises SandboxError if something in it will not die."""
    deadline = time.monotonic() + END_SECONDS
    pause = 0.001
    group.kill()
    while not group.remove():
        if time.monotonic() > deadline:
            raise SandboxError(f"processes {sorted(group.processes())} cannot be killed")
        await asyncio.sleep(pause)  # version 1 tells nobody when a group becomes empty
        pause = min(pause * 2, 0.05)
        group.kill()


async def _died(outer: int) -> None:
    try:
        await readable(outer, END_SECONDS)
    except TimeoutError as err:
        raise SandboxError("a sandbox cannot be killed") from err


class Machine:
    """A running sandbox: see `base.Sandbox` for the contract."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.client = Client(self._lost)

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, or was closed."""
        return self.client.is_lost

    async def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        """Run a command and stream its output, ending in Exit. Leaving early kills its process tree."""
        kills = self._oom_kills()
        call = self.client.start(command, {**confine.ENVIRONMENT, **command.env})
        feeding = asyncio.create_task(_feed(call, command.stdin)) if command.stdin else None
        deadline = time.monotonic() + command.timeout_seconds + _GRACE_SECONDS
        try:
            while not isinstance(frame := await self._next(call, deadline), Exit):
                yield self._output(frame)
            if feeding is not None and feeding.done():
                feeding.result()
            yield self._judged(frame, kills)
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.wait([feeding])
            if not call.ended:
                await self._cancel(call)
            self.client.forget(call)

    async def outcome(self, call_id: str) -> Outcome | None:
        """What became of an earlier command; waits for one that is still running."""
        call = self.client.ask(call_id)
        try:
            frame = await call.next()
        finally:
            if call.ended:
                self.client.forget(call)
        if not isinstance(frame, Remembered):
            raise self._gone("it answered another question")
        return frame.outcome

    async def close(self) -> None:
        """Kill everything in it and free what it held."""
        self.client.lose("it was closed")
        await self._held.end()

    async def _next(self, call: Call, deadline: float) -> Frame:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), _GRACE_SECONDS)):
                return await call.next()
        except TimeoutError as err:
            raise self._gone("it does not answer") from err

    async def _cancel(self, call: Call) -> None:
        call.kill()
        try:
            async with asyncio.timeout(END_SECONDS):
                while not call.ended:
                    await call.next()
        except TimeoutError:
            self.client.lose("it does not end a command")
        except SandboxGone:
            pass  # then the command is dead too

    def _output(self, frame: Frame) -> Output:
        if not isinstance(frame, Output):
            raise self._gone("it answered another question")
        return frame

    def _judged(self, frame: Exit, kills: int) -> Exit:
        return Exit(
            code=frame.code,
            duration_ms=frame.duration_ms,
            timed_out=frame.timed_out,
            out_of_memory=self._oom_kills() > kills,
            dropped_bytes=frame.dropped_bytes,
        )

    def _oom_kills(self) -> int:
        return 0 if self._held.oom_count is None else oom_kills(self._held.oom_count)

    def _gone(self, reason: str) -> SandboxGone:
        self.client.lose(reason)
        return SandboxGone(f"the sandbox is gone: {reason}")

    def _lost(self) -> None:
        self._held.kill()


async def _feed(call: Call, stdin: AsyncIterable[bytes]) -> None:
    try:
        async for data in stdin:
            if data:
                await call.feed(data)
        call.end_feed()
    except SandboxGone:
        return  # `run` says so
    except Exception:
        call.kill()
        raise


@dataclass
class Empty:
    """A sandbox that shows no folder yet: of the shape of a spec, but nobody's."""

    held: Held
    stream: socket.socket
    pid: int  # of PID 1

    @property
    def is_lost(self) -> bool:
        """Whether it has ended by itself."""
        if self.held.outer is None:
            return True
        poll = select.poll()
        poll.register(self.held.outer, select.POLLIN)
        return bool(poll.poll(0))

    async def close(self) -> None:
        """End it."""
        self.stream.close()
        await self.held.end()


async def start_empty(host: Host, spec: Spec, group: Group | None) -> Empty:
    """Start a sandbox in a group that is its own. Raises SandboxUnavailable, and leaves nothing behind."""
    held = Held(group, None)
    async with _or_ended(held):
        held.slot = take_slot() if host.is_root else None
        ours, theirs = socket.socketpair()
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # before anything can be sent
            with theirs:
                await _launch(host, spec, held, theirs)
            ours.settimeout(0)
            pid = await _hello(ours, held.slot)
            held.inner = os.pidfd_open(pid)
        except BaseException:
            ours.close()
            raise
    return Empty(held, ours, pid)


async def furnish(host: Host, empty: Empty, spec: Spec) -> Machine:
    """Make it the sandbox of `spec`. Raises SandboxUnavailable, and leaves nothing behind."""
    held = empty.held
    async with _or_ended(held):
        try:
            if held.group is not None:
                held.group.give(spec.label)
                held.oom_count = held.group.open_oom_count()
            if host.is_root:
                await _show_folders(host.launcher, spec, empty.pid)
            machine = Machine(held)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: machine.client, sock=empty.stream)
        except BaseException:
            empty.stream.close()
            raise
    return machine


@asynccontextmanager
async def _or_ended(held: Held) -> AsyncGenerator[None, None]:
    """Whatever goes wrong in the block ends the sandbox, and says what it had to say."""
    try:
        yield
    except (OSError, TimeoutError, SandboxError) as err:
        held.kill()
        reason = held.complaint() or str(err) or "it did not start in time"
        await held.end()
        raise SandboxUnavailable(f"a sandbox cannot be started: {reason}") from err
    except asyncio.CancelledError:
        await held.end()
        raise


async def _launch(host: Host, spec: Spec, held: Held, stream: socket.socket) -> None:
    held.complaints, errors = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    request = {
        "argv": confine.arguments(spec, host.folder, bind_folders=not host.is_root),
        "filter": str(confine.filter_in(host.folder)),
        "uid": held.slot.uid if held.slot else None,
        "cgroups": held.group.joins if held.group else [],
        "rlimits": _resource_limits(spec.limits, caps_disk=host.caps_disk),
    }
    try:
        held.outer = await host.launcher.start(request, [stream.fileno(), errors])
    finally:
        os.close(errors)


def _resource_limits(limits: Limits, *, caps_disk: bool) -> dict[str, int]:
    values = {"RLIMIT_NOFILE": limits.open_files, "RLIMIT_CORE": 0}
    return values if caps_disk else values | {"RLIMIT_FSIZE": _UNCAPPED_FILE_BYTES}


async def _hello(stream: socket.socket, slot: Slot | None) -> int:
    """The pid of the runner, as the kernel says with the runner's first frame."""
    await readable(stream.fileno(), START_SECONDS)
    size = frames.HEADER.size
    data, ancillary, _, _ = stream.recvmsg(size, socket.CMSG_SPACE(_CREDENTIALS.size))
    if data != frames.HEADER.pack(frames.HELLO, 0, 0) or not ancillary:
        raise SandboxUnavailable("it ended before it began")
    pid: int
    pid, uid, _ = _CREDENTIALS.unpack(ancillary[0][2])
    if slot is not None and uid != slot.uid:
        raise SandboxUnavailable(f"it runs as user {uid}, not {slot.uid}")
    return pid


async def _show_folders(launcher: Launcher, spec: Spec, pid: int) -> None:
    """Map the folders to the sandbox's host user, by its own user namespace, and move them in."""
    with contextlib.ExitStack() as held:

        def hold(fd: int) -> int:
            held.callback(os.close, fd)
            return fd

        namespace = hold(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        users = hold(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        mounts = []
        for folder in spec.folders:
            mount = syscalls.AT_FDCWD if folder.mount is None else folder.mount
            clone = privileged.clone_folder(mount, folder.path, users, read_only=folder.read_only)
            mounts.append((folder.target, hold(clone)))
        libraries = [path for path in spec.read_only_paths if not confine.is_shown_already(path)]
        mounts += [(str(path), hold(privileged.clone_library(path))) for path in libraries]
        if mounts:
            await launcher.move(namespace, mounts)
    privileged.prefer(pid, _RUNNER_NICE)

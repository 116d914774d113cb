"""The small process that starts sandboxes and moves folders into them.

It is one process with one thread for three reasons: bubblewrap's `--die-with-parent` follows the thread that
started it, entering another mount namespace fails in a process with several threads, and forking it is cheap
where forking the server is not. It ends when the server's end of its socket closes, however that happens,
and every sandbox ends with it.

A request is one JSON packet with its fds; so is the answer, with the request's number and an `error` or none.
"""

import array
import json
import os
import resource
import signal
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from zene.sandbox import syscalls

MAX_PACKET = 64 * 1024
MAX_FDS = 64
FILTER_FD = 3  # where bubblewrap finds the filter of system calls

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_LAST_CAPABILITY = 63
_FOR_THE_SERVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # it drains, then closes us


def main() -> None:
    """Serve one server over fd 0 until it is gone."""
    server = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the server watches by pidfd
    for number in _FOR_THE_SERVER:
        signal.signal(number, signal.SIG_IGN)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            packet, fds = receive(server)
            if not packet:
                return
            _answer(server, home, json.loads(packet), fds)
    except ConnectionError:
        return  # the server was killed before it read an answer


def receive(stream: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its fds, which no program started later inherits (`socket.recv_fds` drops that flag)."""
    room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    packet, ancillary, _, _ = stream.recvmsg(MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return packet, list(fds)


def _answer(server: socket.socket, home: int, request: dict[str, Any], fds: list[int]) -> None:
    result: list[int] = []
    error = ""
    try:
        if "argv" in request:
            result = [_start(request, fds)]
        else:
            _move(home, request["targets"], fds)
    except OSError as err:
        error = str(err)
    finally:
        for fd in fds:
            os.close(fd)
    answer = {"number": request["number"], "error": error}
    socket.send_fds(server, [json.dumps(answer).encode()], result)
    for fd in result:
        os.close(fd)


def _move(home: int, targets: Sequence[str], fds: Sequence[int]) -> None:
    namespace, *mounts = fds
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    try:
        for mount, target in zip(mounts, targets, strict=True):
            syscalls.move_mount(mount, target)
    finally:
        syscalls.setns(home, syscalls.CLONE_NEWNS)


def _start(request: dict[str, Any], fds: Sequence[int]) -> int:
    """Fork a child that becomes the sandbox; the answer is its pidfd."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become_sandbox(request, fds, parent)
    return os.pidfd_open(child)


def _become_sandbox(request: dict[str, Any], fds: Sequence[int], parent: int) -> NoReturn:
    """Join the cgroups first, so that nothing of the sandbox was ever outside them, then give up rights."""
    try:
        for path in request["cgroups"]:
            with open(path, "w") as file:  # noqa: PTH123 - pathlib would only be imported for this
                file.write("0")
        stream, errors = fds
        for source, target in ((stream, 0), (stream, 1), (errors, 2)):
            os.dup2(source, target)
        rules = os.open(request["filter"], os.O_RDONLY)
        if rules != FILTER_FD:
            os.dup2(rules, FILTER_FD)
        os.set_inheritable(FILTER_FD, True)  # noqa: FBT003
        for name, value in request["rlimits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        os.setsid()
        if request["uid"] is not None:
            _drop_to(request["uid"])
        for number in (signal.SIGCHLD, *_FOR_THE_SERVER):
            signal.signal(number, signal.SIG_DFL)
        syscalls.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.execve(request["argv"][0], request["argv"], {})  # noqa: S606 - no shell is wanted
    except OSError as err:
        os.write(2, f"cannot start the sandbox: {err}".encode())
    finally:
        os._exit(127)


def _drop_to(uid: int) -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            syscalls.prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # the kernel knows no more of them
            break
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


if __name__ == "__main__":
    main()

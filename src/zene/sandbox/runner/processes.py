"""The sandbox's processes: starting one, and finding and killing all that a command began.

A command leads a session of its own. What has left that session is found by its parents; what has lost
those too (a double fork) is the command's if it is newer than the command and in nobody else's session.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # it has no stubs
import posix
import time

Table = dict[int, tuple[int, int, int]]  # pid → parent, session, start in ticks since boot

_TICKS = posix.sysconf("SC_CLK_TCK")
_KILL_ROUNDS = 20
_TYPE, _FOLDER = 0o170000, 0o040000  # of a mode


class Spawner:
    """Starts commands so that, when memory runs short, they are killed before the runner."""

    def __init__(self) -> None:
        self._score = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY | posix.O_CLOEXEC)

    def spawn(
        self, argv: list[bytes], environ: dict[bytes, bytes], stdio: tuple[int | None, int, int]
    ) -> int:
        """Start a program in the current folder; None for stdin is /dev/null. Raises OSError."""
        stdin, stdout, stderr = stdio
        actions: list[tuple[int, ...] | tuple[int, int, bytes, int, int]] = [
            (posix.POSIX_SPAWN_DUP2, stdout, 1),
            (posix.POSIX_SPAWN_DUP2, stderr, 2),
            (posix.POSIX_SPAWN_OPEN, 0, b"/dev/null", posix.O_RDONLY, 0)
            if stdin is None
            else (posix.POSIX_SPAWN_DUP2, stdin, 0),
        ]
        posix.pwrite(self._score, b"500", 0)  # a child inherits it from its first moment
        try:
            return posix.posix_spawn(
                _find(argv[0], environ.get(b"PATH", b"")),
                argv,
                environ,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ],
            )
        finally:
            posix.pwrite(self._score, b"0", 0)


def now_in_ticks() -> int:
    """The time as `start` in a Table has it."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


class Sessions:
    """Whose session is whose: of commands that run, and of ended ones that left something behind."""

    def __init__(self) -> None:
        self._leaders: set[int] = set()

    def add(self, leader: int) -> None:
        """A command has begun."""
        self._leaders.add(leader)

    def kill(self, leader: int, started: int) -> None:
        """Kill all that a command began. What forks faster than we look is ended by one signal to all."""
        seen: set[int] = set()
        for _ in range(_KILL_ROUNDS):
            table = _processes()
            self._leaders &= {session for _, session, _ in table.values()} | {leader}
            found = {pid for pid in table if self._belongs(pid, table, leader, started)} - seen
            if not found:
                return
            for pid in found:
                _kill(pid)
            seen |= found
        _kill(-1)

    def _belongs(self, pid: int, table: Table, leader: int, started: int) -> bool:
        while True:
            parent, session, start = table[pid]
            if session == leader:
                return True
            if session in self._leaders or start < started:
                return False
            if parent not in table:
                return True
            pid = parent


def _processes() -> Table:
    """Every process but PID 1 and those that have ended."""
    table = {}
    for name in posix.listdir("/proc"):
        if name.isdigit() and name != "1":
            fields = _fields(f"/proc/{name}/stat")
            if fields and fields[0] not in {b"Z", b"X"}:
                table[int(name)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def _fields(path: str) -> list[bytes]:
    """What follows the program's name in a stat file; nothing when the process ended while we looked."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib starts slowly
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        posix.kill(pid, _signal.SIGKILL)
    except ProcessLookupError:
        return


def _find(program: bytes, path: bytes) -> bytes:
    """Where the program is, by the command's own PATH."""
    if b"/" not in program:
        for folder in path.split(b":"):
            full = folder + b"/" + program
            if posix.access(full, posix.X_OK) and not is_folder(full):
                return full
    return program


def is_folder(path: bytes) -> bool:
    """Whether there is a folder of that name."""
    try:
        return posix.stat(path).st_mode & _TYPE == _FOLDER
    except OSError:
        return False

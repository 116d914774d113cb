"""Caps on CPU, memory and processes, and the one list of what runs under a label.

Every sandbox is a group below `zene/<installation>` that is given its label as an extended attribute, so
whoever takes a session over finds what a dead predecessor left, and a sandbox that was started for nobody
need not change its group: moving a process waits some 10 ms for all processors. Which process made it is in
its name, which it has from its first moment on. Both layouts are known:
version 2 (one tree), and version 1 or hybrid (a tree a controller), where each operation is done in all three.
"""

import errno
import os
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path

from zene.sandbox.base import Limits

_CONTROLLERS = ("cpu", "memory", "pids")
_PERIOD_US = 100_000
_SHARES, _WEIGHT = "512", "50"  # all sandboxes together weigh half of what one server weighs
_MAKE_TRIES = 5
_LABEL = "trusted.zene.label"
_REMOVED = (errno.ENOENT, errno.ENODEV)  # before a look at a group, and amid it


@dataclass(frozen=True)
class Group:
    """One sandbox's folder in each tree; one folder only in version 2."""

    folders: tuple[Path, ...]
    unified: bool

    @property
    def joins(self) -> list[str]:
        """Files into which a process of one thread writes 0 to join.

        In version 1 `tasks` spares the lock over all processes, and with it some 10 ms of waiting.
        """
        return [
            str(folder / ("cgroup.procs" if self.unified else "tasks")) for folder in self.folders
        ]

    def cap(self, limits: Limits) -> None:
        """Set the caps. Raises OSError."""
        values = _unified_caps(limits) if self.unified else _split_caps(limits)
        for folder in self.folders:
            for name, value in values.items():
                file = folder / name
                if file.exists():  # a kernel without swap accounting has no such file
                    file.write_text(value)

    def give(self, label: str) -> None:
        """Let it be found under the label. Raises OSError."""
        os.setxattr(self.folders[0], _LABEL, label.encode())

    @property
    def is_orphaned(self) -> bool:
        """Whether the process that made it is known to have ended. What is in it then was killed half started:
        bubblewrap dies with its parent only a moment later.
        """
        _, *owner = self.folders[0].name.split(".")
        if len(owner) != 3 or owner[0] != _pid_namespace():
            return False  # of another container, whose numbers mean nothing here
        return owner[1:] != _process(owner[1])

    def processes(self) -> set[int]:
        """Who is in the group now."""
        found: set[int] = set()
        for folder in self.folders:
            try:
                found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
            except OSError as err:
                if err.errno not in _REMOVED:
                    raise
        return found

    def kill(self) -> None:
        """Send SIGKILL to all of it, once."""
        for pid in self.processes() - {0}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def remove(self) -> bool:
        """Remove the group; False while something still ends in it."""
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def open_oom_count(self) -> int:
        """An fd for `oom_kills`: opening the file for each command would cost more than all else here."""
        name = "memory.events" if self.unified else "memory.oom_control"
        file = next(folder / name for folder in self.folders if (folder / name).exists())
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)


def oom_kills(fd: int) -> int:
    """How many processes of the group the kernel has killed for want of memory."""
    try:
        lines = os.pread(fd, 1024, 0).splitlines()
    except OSError:  # somebody killed the label and removed the group: the sandbox is gone
        return 0
    return sum(int(line[9:]) for line in lines if line.startswith(b"oom_kill "))


@dataclass(frozen=True)
class Cgroups:
    """The groups of one installation on this host."""

    roots: tuple[Path, ...]
    unified: bool

    def create(self, limits: Limits) -> Group:
        """Make a new group with its caps. Raises OSError."""
        group = self._group(".".join((secrets.token_hex(8), _pid_namespace(), *_process("self"))))
        for folder in group.folders:
            self._make(folder)
        group.cap(limits)
        return group

    def groups(self) -> list[Group]:
        """Every group that there is."""
        roots = [root for root in self.roots if root.exists()]
        names = {entry.name for root in roots for entry in root.iterdir() if entry.is_dir()}
        return [self._group(name) for name in names]

    def find(self, label: str) -> list[Group]:
        """The groups under a label: as a rule one or none. Every start asks, beside all that run: a call of
        the system for each is all it costs.
        """
        root, wanted = str(self.roots[0]), label.encode()
        try:
            with os.scandir(root) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []
        return [
            self._group(name) for name in names if _attribute(f"{root}/{name}", _LABEL) == wanted
        ]

    def remove(self) -> None:
        """Remove the installation's own folders, as far as they are empty."""
        for root in self.roots:
            for folder in (root, root.parent):
                try:
                    folder.rmdir()
                except OSError:
                    break

    def _make(self, folder: Path) -> None:
        """Another process of the installation may have removed the root, which was empty for a moment."""
        for _ in range(_MAKE_TRIES):
            try:
                folder.mkdir()
            except FileNotFoundError:
                _prepare(folder.parent, unified=self.unified)
            else:
                return
        raise FileNotFoundError(folder)

    def _group(self, name: str) -> Group:
        return Group(tuple(root / name for root in self.roots), self.unified)


def _attribute(folder: str, name: str) -> bytes | None:
    try:
        return os.getxattr(folder, name)
    except OSError:  # it has none, or is gone
        return None


def _process(pid: str) -> list[str]:
    """A process by its number and when it started, which no later one has both; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return [text.split()[0], text.rpartition(")")[2].split()[19]]


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def find_cgroups(installation: str) -> Cgroups | str:
    """The installation's groups, made ready; or why this machine cannot have any, and what would help."""
    if os.geteuid() != 0:
        return "needs root, or a cgroup delegated to this user"
    trees = _trees()
    if trees is None:
        return "no cgroup tree with cpu, memory and pids is mounted below /sys/fs/cgroup"
    unified = len(trees) == 1
    try:
        roots = tuple(tree / "zene" / installation for tree in trees)
        for root in roots:
            _prepare(root, unified=unified)
    except OSError as err:
        return f"cgroups cannot be made: {err}; run Zene where /sys/fs/cgroup is writable"
    return Cgroups(roots, unified)


def _trees(base: Path = Path("/sys/fs/cgroup")) -> list[Path] | None:
    """The version 2 tree if it has all controllers, else the three trees of version 1."""
    try:
        offered = (base / "cgroup.controllers").read_text().split()
    except OSError:
        offered = []
    if set(_CONTROLLERS) <= set(offered):
        return [base]
    split = [base / name for name in _CONTROLLERS]
    return split if all((tree / "cgroup.procs").exists() for tree in split) else None


def _prepare(root: Path, *, unified: bool) -> None:
    top, tree = root.parent, root.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    if unified:
        for folder in (tree, top, root):
            (folder / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        (top / "cpu.weight").write_text(_WEIGHT)
    elif tree.name == "cpu":
        (top / "cpu.shares").write_text(_SHARES)


def _unified_caps(limits: Limits) -> dict[str, str]:
    return {
        "memory.max": str(limits.memory_bytes),
        "memory.swap.max": "0",
        "pids.max": str(limits.pids),
        "cpu.max": f"{int(limits.cpus * _PERIOD_US)} {_PERIOD_US}",
    }


def _split_caps(limits: Limits) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": str(limits.memory_bytes),
        "memory.memsw.limit_in_bytes": str(limits.memory_bytes),
        "pids.max": str(limits.pids),
        "cpu.cfs_period_us": str(_PERIOD_US),
        "cpu.cfs_quota_us": str(int(limits.cpus * _PERIOD_US)),
    }

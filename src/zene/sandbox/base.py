"""A sandbox is one session's private machine: disposable at any time, on a workspace that is not.

"Where it runs" (`Provider`) is apart from "what it can do" (`Sandbox`). Every time, size and count has a
cap. Nothing that comes out of a sandbox is trusted: it is bounded, validated and never used for billing.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

MEBIBYTE = 1 << 20
INSIDE_UID = 10001  # the only user of a sandbox, and the owner of every file in a workspace on disk


class Limits(Struct, frozen=True, kw_only=True):
    """Caps of one sandbox. Disk and inodes are caps of the workspace's image, not of the sandbox."""

    cpus: float = 1.0
    memory_bytes: int = 4096 * MEBIBYTE
    pids: int = 512
    open_files: int = 1024


class Folder(Struct, frozen=True, kw_only=True):
    """A folder that the sandbox shows at `target`.

    `mount` is the fd of a detached mount whose files belong to INSIDE_UID on disk (the sandbox idmaps a
    clone of `mount`/`path` for its own host uid); None where folders are plain: then `path` is absolute.
    """

    target: str
    mount: int | None
    path: str
    read_only: bool = False


class Spec(Struct, frozen=True, kw_only=True):
    """What to start. `label` names the session, so that whoever takes over can kill what is left."""

    label: str
    folders: tuple[Folder, ...]
    limits: Limits = Limits()
    read_only_paths: tuple[
        Path, ...
    ] = ()  # host folders shown at the same place, e.g. test libraries


class Command(Struct, frozen=True, kw_only=True):
    """A program to run, never through a host shell. stderr goes where stdout goes unless `split`.

    Output beyond `output_limit` bytes is read, counted and dropped. After `timeout_seconds` the whole
    process tree is killed. `call_id` is the name under which `Sandbox.outcome` answers later.
    """

    argv: tuple[str, ...]
    cwd: str = "/workspace"
    env: Mapping[str, str] = {}
    timeout_seconds: float = 120.0
    output_limit: int = 16 * MEBIBYTE
    split: bool = False
    stdin: AsyncIterable[bytes] | None = None
    call_id: str | None = None


class Output(Struct, frozen=True):
    """Bytes the command wrote, in the order they were read; `stream` is 1, or 2 for stderr if split."""

    stream: int
    data: bytes


class Exit(Struct, frozen=True, kw_only=True):
    """How the command ended: `code` 0 to 255, or minus the signal's number. Always the last output.

    `dropped_bytes` were written beyond the limit. A process left behind that holds stdout does not keep
    a command open for more than 200 ms after its main process has ended.
    """

    code: int
    duration_ms: int
    timed_out: bool = False
    out_of_memory: bool = False
    dropped_bytes: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """What the sandbox remembers of a call: its exit and the first and last part of its output."""

    exit: Exit
    output: bytes


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a backend can do here. `enforced` is what it really holds on this machine, of
    {cpu, memory, pids, open_files, disk, inodes, network, users, seccomp}; `missing` says for each of the
    others, in words for the administrator, why not and what would help.
    """

    commands: bool
    enforced: frozenset[str]
    missing: Mapping[str, str]


class Sandbox(Protocol):
    """One running sandbox. Closing it twice is harmless; using it afterwards raises SandboxGone."""

    def run(self, command: Command) -> AsyncGenerator[Output | Exit, None]:
        """Run a command and stream its output, ending in Exit. Leaving early kills its process tree.

        Raises SandboxGone when the sandbox ends under it. Commands may run side by side.
        """
        ...

    async def outcome(self, call_id: str) -> Outcome | None:
        """What became of an earlier command of that call id; None if it never began or is forgotten.

        Waits for one that is still running. Raises SandboxGone.
        """
        ...

    async def close(self) -> None:
        """Kill everything in it and free what it held. No process of it is left when this returns."""
        ...


class Provider(Protocol):
    """Starts sandboxes on this host."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do and enforce here, once it is started."""
        ...

    async def start(self) -> None:
        """Make ready, once, and remove what dead predecessors left. Raises SetupError with the cure."""
        ...

    def expect(self, spec: Spec) -> None:
        """Specs like this one, but for the label, will be asked for: some may be kept ready, to open faster."""
        ...

    async def open(self, spec: Spec) -> Sandbox:
        """Start one. Raises SandboxUnavailable. Whatever still runs under `spec.label` is killed first."""
        ...

    async def kill(self, label: str) -> None:
        """Kill whatever runs under the label, whoever started it; harmless when there is nothing."""
        ...

    async def reap(self) -> None:
        """Remove what processes of the installation left that have ended on this host, and nothing else."""
        ...

    async def close(self) -> None:
        """Close every sandbox, then stop. Twice is harmless."""
        ...

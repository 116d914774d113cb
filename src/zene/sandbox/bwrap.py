"""Sandboxes by bubblewrap: a namespace of everything, one host user a sandbox where Zene runs as root.

The sandbox starts empty; the session's folders are moved into it as detached mounts, mapped to its host
user, so that nothing on the host ever shows them. An ordinary user gets the same sandbox with bound
folders, one host user for all and without caps; `Capabilities` says so.
"""

import asyncio
import os
from pathlib import Path

import msgspec

from zene.domain.errors import SandboxError, SandboxUnavailable, SetupError
from zene.sandbox import confine, privileged
from zene.sandbox.base import Capabilities, Command, Limits, Spec
from zene.sandbox.cgroups import Cgroups, Group, find_cgroups
from zene.sandbox.launch import Launcher
from zene.sandbox.machine import Host, Machine, kill_group, start_machine

_ALWAYS = frozenset({"open_files", "network", "seccomp"})
_CAPPED = frozenset({"cpu", "memory", "pids"})
_ON_DISK = frozenset({"disk", "inodes"})
# Where the files that every sandbox shows lie: reachable by each one's host user, which a data folder is
# not. Their content is the same for all installations.
SHOWN = Path("/run/zene/shown")

_CURE = (
    "as root nothing else is needed; as an ordinary user, allow user namespaces: "
    "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
)


class BubblewrapProvider:
    """Starts sandboxes with bubblewrap. One for each installation and process."""

    def __init__(self, *, installation: str, data_dir: Path) -> None:
        self._installation = installation
        self._folder = SHOWN if os.geteuid() == 0 else data_dir / "sandbox"
        self._cgroups: Cgroups | str = "not started"
        self._images: str | None = "not started"
        self._host: Host | None = None
        self._running: dict[str, Machine] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What this machine enforces, as `start` found it."""
        missing: dict[str, str] = {}
        if isinstance(self._cgroups, str):
            missing |= dict.fromkeys(_CAPPED, self._cgroups)
        if self._images is not None:
            missing |= dict.fromkeys(_ON_DISK, self._images)
        if os.geteuid() != 0:
            missing["users"] = "all sandboxes run as the user who started Zene; start it as root"
        known = _ALWAYS | _CAPPED | _ON_DISK | {"users"}
        return Capabilities(commands=True, enforced=known - missing.keys(), missing=missing)

    async def start(self) -> None:
        """Start the launcher, remove what a dead predecessor left, and try one sandbox.

        A predecessor's processes ended with it; only groups remain. Those in use are a living neighbour's.
        """
        await asyncio.to_thread(confine.prepare, self._folder)
        self._images = await asyncio.to_thread(privileged.can_mount_images)
        self._cgroups = await asyncio.to_thread(find_cgroups, self._installation)
        self._host = Host(
            launcher=Launcher(),
            folder=self._folder,
            is_root=os.geteuid() == 0,
            caps_disk=self._images is None,
        )
        if isinstance(self._cgroups, Cgroups):
            await asyncio.to_thread(self._cgroups.remove_empty)
        await self._try_one()

    async def open(self, spec: Spec) -> Machine:
        """Start a sandbox for the label, after killing what still runs under it."""
        await self.kill(spec.label)
        host = await self._ready_host()
        group = await self._group(spec)
        sandbox = await start_machine(host, spec, group)
        self._running = {label: one for label, one in self._running.items() if not one.is_lost}
        self._running[spec.label] = sandbox
        return sandbox

    async def kill(self, label: str) -> None:
        """Kill what runs under the label, whoever started it."""
        known = self._running.pop(label, None)
        if known is not None:
            await known.close()
        if isinstance(self._cgroups, Cgroups):
            await kill_group(self._cgroups.group(label))

    async def close(self) -> None:
        """Close all sandboxes, then the launcher."""
        for label in list(self._running):
            await self.kill(label)
        if self._host is not None:
            await self._host.launcher.close()
            self._host = None
        if isinstance(self._cgroups, Cgroups):
            self._cgroups.remove()

    async def _ready_host(self) -> Host:
        """The host with a launcher that lives; one that was killed took its sandboxes along."""
        if self._host is None:
            raise SandboxUnavailable("sandboxes were not started, or are closed")
        if self._host.launcher.has_ended:
            await self._host.launcher.close()
            self._host = msgspec.structs.replace(self._host, launcher=Launcher())
        return self._host

    async def _group(self, spec: Spec) -> Group | None:
        if isinstance(self._cgroups, str):
            return None
        return await asyncio.to_thread(self._cgroups.create, spec.label, spec.limits)

    async def _try_one(self) -> None:
        label = f"probe-{os.getpid()}"
        try:
            sandbox = await self.open(Spec(label=label, folders=(), limits=Limits()))
            async for _ in sandbox.run(Command(argv=("/bin/true",), cwd="/")):
                pass
        except SandboxError as err:
            await self.close()
            raise SetupError(f"no sandbox can be started here: {err.message}; {_CURE}") from err
        await self.kill(label)

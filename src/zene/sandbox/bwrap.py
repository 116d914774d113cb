"""Sandboxes by bubblewrap: a namespace of everything, one host user a sandbox where Zene runs as root.

The sandbox starts empty; the session's folders are moved into it as detached mounts, mapped to its host
user, so that nothing on the host ever shows them. An ordinary user gets the same sandbox with bound
folders, one host user for all and without caps; `Capabilities` says so.
"""

import asyncio
import os
from pathlib import Path

import msgspec

from zene import telemetry
from zene.domain.errors import SandboxError, SandboxUnavailable, SetupError
from zene.sandbox import confine, privileged
from zene.sandbox.base import Capabilities, Command, Limits, Spec
from zene.sandbox.cgroups import Cgroups, Group, find_cgroups
from zene.sandbox.launch import Launcher
from zene.sandbox.machine import Empty, Host, Machine, furnish, kill_group, start_empty
from zene.sandbox.spares import Spares

_ALWAYS = frozenset({"open_files", "network", "seccomp"})
_CAPPED = frozenset({"cpu", "memory", "pids"})
_ON_DISK = frozenset({"disk", "inodes"})
# Where the files that every sandbox shows lie: reachable by each one's host user, which a data folder is
# not. Their content is the same for all installations.
SHOWN = Path("/run/zene/shown")

_CURE = (
    "bubblewrap is needed (apt-get install bubblewrap), and for an ordinary user user namespaces: "
    "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
)

log = telemetry.logger(__name__)


class BubblewrapProvider:
    """Starts sandboxes with bubblewrap. One for each installation and process."""

    def __init__(self, *, installation: str, data_dir: Path, spares: int = 1) -> None:
        self._installation = installation
        self._is_root = os.geteuid() == 0
        self._folder = SHOWN if self._is_root else data_dir / "sandbox"
        self._cgroups: Cgroups | str = "not started"
        self._images: str | None = "not started"
        self._host: Host | None = None
        self._running: dict[str, Machine] = {}
        self.spares = Spares(self._start_empty, spares)

    @property
    def capabilities(self) -> Capabilities:
        """What this machine enforces, as `start` found it."""
        missing: dict[str, str] = {}
        if isinstance(self._cgroups, str):
            missing |= dict.fromkeys(_CAPPED, self._cgroups)
        if self._images is not None:
            missing |= dict.fromkeys(_ON_DISK, self._images)
        if not self._is_root:
            missing["users"] = "all sandboxes run as the user who started Zene; start it as root"
        known = _ALWAYS | _CAPPED | _ON_DISK | {"users"}
        return Capabilities(commands=True, enforced=known - missing.keys(), missing=missing)

    async def start(self) -> None:
        """Start the launcher, remove what a dead predecessor left, and try one sandbox."""
        try:
            await asyncio.to_thread(confine.prepare, self._folder)
        except OSError as err:
            raise SetupError(
                f"what sandboxes are shown cannot be put into {self._folder}: {err.strerror}; {_CURE}"
            ) from err
        self._images = await asyncio.to_thread(privileged.can_mount_images)
        self._cgroups = await asyncio.to_thread(find_cgroups, self._installation)
        self._host = Host(
            launcher=Launcher(),
            folder=self._folder,
            is_root=self._is_root,
            caps_disk=self._images is None,
        )
        await self.reap()
        await self._try_one()

    async def reap(self) -> None:
        """Remove what processes that have ended left: their sandboxes ended with them, but for one that was
        just being started.
        """
        if isinstance(self._cgroups, Cgroups):
            for group in await asyncio.to_thread(self._cgroups.groups):
                if group.is_orphaned:
                    await kill_group(group)

    def expect(self, spec: Spec) -> None:
        """Keep some ready. An ordinary user's show their folders from their start: there it does nothing."""
        if self._is_root:
            self.spares.expect(spec)

    async def open(self, spec: Spec) -> Machine:
        """Start a sandbox for the label, or take a spare one, after killing what still runs under it."""
        await self.kill(spec.label)
        host = await self._ready_host()
        sandbox = await self._from_spare(host, spec)
        if sandbox is None:
            sandbox = await furnish(host, await self._start_empty(spec), spec)
        self._running = {label: one for label, one in self._running.items() if not one.is_lost}
        self._running[spec.label] = sandbox
        return sandbox

    async def kill(self, label: str) -> None:
        """Kill what runs under the label, whoever started it."""
        known = self._running.pop(label, None)
        if known is not None:
            await known.close()
        if isinstance(self._cgroups, Cgroups):
            for group in self._cgroups.find(label):
                await kill_group(group)

    async def close(self) -> None:
        """Close all sandboxes, then the launcher."""
        await self.spares.close()
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

    async def _from_spare(self, host: Host, spec: Spec) -> Machine | None:
        """None where there is no spare one, or it ends just now."""
        empty = await self.spares.take(spec)
        if empty is None:
            return None
        try:
            return await furnish(host, empty, spec)
        except SandboxUnavailable as err:
            log.warning("sandbox.spare_failed", error=err.message)
            return None

    async def _start_empty(self, spec: Spec) -> Empty:
        host = await self._ready_host()
        return await start_empty(host, spec, await self._group(spec.limits))

    async def _group(self, limits: Limits) -> Group | None:
        if isinstance(self._cgroups, str):
            return None
        making = asyncio.ensure_future(asyncio.to_thread(self._cgroups.create, limits))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            (await making).remove()
            raise

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

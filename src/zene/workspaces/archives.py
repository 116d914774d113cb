"""A project's files: an uploaded archive becomes the workspace that its sessions start as a copy of.

It is unpacked by a sandbox into a workspace of its own, under the same caps as any, and takes the place of
the project's former one only when all of it is there.
"""

import fcntl
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from zene.domain.errors import Conflict
from zene.sandbox.base import Limits, Provider, Spec
from zene.workspaces import front, inside
from zene.workspaces.attachments import Attachments
from zene.workspaces.files import Files
from zene.workspaces.storage import BASELINE, HOME, TEMPORARY, WORKSPACE, Attached, Storage
from zene.workspaces.threads import Threads

_SECONDS = 600.0
_MODULES = (*("inside_answer", "inside_tar", "inside_git", "inside_repository", "inside_unpack"),)


class Unpacked(Struct, frozen=True, kw_only=True):
    """What an archive became. `dropped` names what of `.git` folders was not taken."""

    files: int
    bytes: int
    dropped: tuple[str, ...]


def lock_of(project: Path) -> Path:
    """The file that says, by being locked, that an upload for the project runs."""
    return project.with_suffix(".lock")


class Unpacker(Struct, frozen=True, kw_only=True):
    """Unpacks archives, one at a time for each project; `most_bytes` and `most_entries` are their caps."""

    storage: Storage
    attachments: Attachments
    threads: Threads
    users: Threads
    sandboxes: Provider
    limits: Limits
    most_bytes: int
    most_entries: int

    async def replace(self, project: Path, archive: AsyncIterable[bytes]) -> Unpacked:
        """Make `project`, the place of a project, from a .tar.gz, or leave it as it is.

        Raises InvalidInput (415, 422), TooLarge, Conflict while another upload for it runs, Unavailable,
        SandboxUnavailable, and whatever reading `archive` raises.
        """
        with _alone(lock_of(project)):
            making = project.with_name(f".{secrets.token_hex(8)}{project.suffix}")
            try:
                await self.threads.run(self.storage.copy, None, making)
                unpacked, begins_with = await self._unpack(making, project.stem, archive)
                await self.threads.run(self._replace, making, project, begins_with)
            finally:
                await self.threads.run(self.storage.remove, making)
        return unpacked

    def _replace(self, making: Path, project: Path, begins_with: front.Front) -> None:
        """In this order, so that a crash in between leaves no front of other files."""
        front.forget(project)
        self.storage.replace(making, project)
        front.keep(project, begins_with)

    async def _unpack(
        self, making: Path, name: str, archive: AsyncIterable[bytes]
    ) -> tuple[Unpacked, front.Front]:
        source = _Source(archive)
        script = inside.Script(
            modules=_MODULES,
            options={"most_bytes": self.most_bytes, "most_entries": self.most_entries},
            timeout_seconds=_SECONDS,
            stdin=source.read(),
        )
        attached = await self.attachments.take(making)
        try:
            answer, _ = await inside.run(
                self.sandboxes, self._spec(attached, name), script, Unpacked
            )
            begins_with = await front.taken(Files(attached.root, self.users))
        finally:
            await self.attachments.give_back(making)
            if source.failure is not None:
                raise source.failure
        return answer, begins_with

    def _spec(self, attached: Attached, name: str) -> Spec:
        return Spec(
            label=f"unpack-{name}",
            folders=(
                attached.folder(WORKSPACE, "/workspace"),
                attached.folder(BASELINE, "/baseline"),
                attached.folder(HOME, "/home/zene"),
                attached.folder(TEMPORARY, "/tmp"),  # noqa: S108 - inside the sandbox
            ),
            limits=self.limits,
        )


class _Source:
    """The upload, and why it broke off, which is not for the sandbox to report."""

    def __init__(self, archive: AsyncIterable[bytes]) -> None:
        self._archive = archive
        self.failure: Exception | None = None

    async def read(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._archive:
                yield chunk
        except Exception as err:
            self.failure = err
            raise


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the lock file, which the kernel frees when this process ends. Raises Conflict."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise Conflict(
            "another archive is being unpacked for this project; try again when it is done",
            code="upload_in_progress",
        ) from err

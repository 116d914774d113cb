"""What a session changed, compared with Zene's own record of what it started from.

git does it, in a sandbox that only reads the workspace, while the agent's own sandbox may be running on it.
"""

import asyncio
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

from msgspec import Struct

from zene.domain.errors import Unavailable
from zene.sandbox.base import Limits, Provider, Spec
from zene.workspaces import inside
from zene.workspaces.attachments import Attachments
from zene.workspaces.storage import BASELINE, WORKSPACE, Attached

MOST_FILE_BYTES = 1 << 20
MOST_PATCH_BYTES = 4 << 20
MOST_FILES = 10_000
_SECONDS = 10.0
_MODULES = ("inside_answer", "inside_git", "inside_diff")


class FileChange(Struct, frozen=True, kw_only=True):
    """A file that differs. `size` is set where it, now or before, is larger than MOST_FILE_BYTES: then it is
    only named. Lines are counted for text alone.
    """

    path: str
    status: Literal["added", "modified", "deleted"]
    added: int
    removed: int
    is_binary: bool
    size: int | None = None


class Changes(Struct, frozen=True, kw_only=True):
    """Files that differ, by path, and how many more there may be that were not looked at."""

    files: tuple[FileChange, ...]
    more_files: int
    is_cut: bool

    @property
    def added(self) -> int:
        """Lines added in all."""
        return sum(file.added for file in self.files)

    @property
    def removed(self) -> int:
        """Lines removed in all."""
        return sum(file.removed for file in self.files)


class Diff(Struct, frozen=True, kw_only=True):
    """Changes with their patch, which `git apply` takes; lines that begin with # say what is left out of it."""

    patch: str
    changes: Changes


class Differ(Struct, frozen=True, kw_only=True):
    """Compares workspaces, each by one sandbox at a time."""

    attachments: Attachments
    sandboxes: Provider
    limits: Limits
    turns: WeakValueDictionary[Path, asyncio.Lock]

    async def diff(self, place: Path, label: str) -> Diff:
        """Compare and show. Raises NotFound, SandboxUnavailable, and Unavailable after 10 s."""
        changes, patch = await self._compare(place, label, MOST_PATCH_BYTES)
        return Diff(patch=_with_marks(patch.decode(errors="replace"), changes), changes=changes)

    async def changed(self, place: Path, label: str) -> Changes:
        """As `diff`, without a patch, which costs less."""
        changes, _ = await self._compare(place, label, 0)
        return changes

    async def _compare(self, place: Path, label: str, most: int) -> tuple[Changes, bytes]:
        turn = self.turns.setdefault(place, asyncio.Lock())
        try:
            async with asyncio.timeout(_SECONDS), turn:
                attached = await self.attachments.take(place)
                try:
                    return await inside.run(
                        self.sandboxes, self._spec(attached, label), _script(most), Changes
                    )
                finally:
                    await self.attachments.give_back(place)
        except TimeoutError as err:
            raise Unavailable(
                f"comparing the workspace took more than {_SECONDS:.0f} s", code="diff_timeout"
            ) from err

    def _spec(self, attached: Attached, label: str) -> Spec:
        return Spec(
            label=label,
            folders=(
                attached.folder(WORKSPACE, "/workspace", read_only=True),
                attached.folder(BASELINE, "/baseline", read_only=True),
            ),
            limits=self.limits,
        )


def _script(most_patch_bytes: int) -> inside.Script:
    options = {
        "most_patch_bytes": most_patch_bytes,
        "most_file_bytes": MOST_FILE_BYTES,
        "most_files": MOST_FILES,
    }
    return inside.Script(
        modules=_MODULES,
        options=options,
        timeout_seconds=_SECONDS,
        output_limit=2 * MOST_PATCH_BYTES + MOST_FILES * 8192,
    )


def _with_marks(patch: str, changes: Changes) -> str:
    marks = [
        f"# not shown: {file.path!a}, {file.size} bytes\n"
        for file in changes.files
        if file.size is not None
    ]
    if changes.is_cut:
        marks.append(f"# cut here: the patch is larger than {MOST_PATCH_BYTES} bytes\n")
    if changes.more_files:
        marks.append(f"# not shown: {changes.more_files} more files\n")
    return patch + "".join(marks)

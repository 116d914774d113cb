"""A project on its way to the server: packed as git sees it, on the caller's machine, by the caller's git.

Uncommitted work goes along, ignored files stay behind. Links are packed as links and never followed,
so nothing from outside the folder is uploaded by a link that points there.
"""

import asyncio
import contextlib
import os
import re
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from zene.cli import terminal
from zene.domain.errors import InvalidInput, SetupError

# Left behind in a folder without git: what tools make anew, and other tools' histories.
_LEFT_BEHIND = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox",
        ".mypy_cache", ".pytest_cache", ".ruff_cache", ".DS_Store",
    }
)  # fmt: skip
_SHORT_ADDRESS = re.compile(r"[\w.-]+@[\w.-]+:.")  # git@host:path
_COMPRESSION = 1  # an upload is read once, and higher levels cost more than they save


def is_git_url(project: str) -> bool:
    """Whether this names a repository to clone rather than a folder of this machine."""
    return not Path(project).exists() and bool("://" in project or _SHORT_ADDRESS.match(project))


@contextlib.asynccontextmanager
async def packed(project: str) -> AsyncIterator[Path]:
    """The project as a .tar.gz in a temporary folder, which is gone afterwards. Raises InvalidInput, SetupError."""
    with tempfile.TemporaryDirectory(prefix="zene-") as scratch:
        archive = Path(scratch) / "project.tar.gz"
        if is_git_url(project):
            folder = Path(scratch) / "clone"
            await _clone(project, folder)
        else:
            folder = Path(project)
        count = await asyncio.to_thread(pack, folder, archive)
        size = terminal.size(archive.stat().st_size)
        terminal.note(f"Uploading {terminal.counted(count, 'file')}, {size} packed.")
        yield archive


async def _clone(url: str, folder: Path) -> None:
    terminal.note(f"Cloning {terminal.safe(url)}.")
    command = ("git", "clone", "--quiet", "--depth=1", "--", url, str(folder))
    try:
        git = await asyncio.create_subprocess_exec(*command)
    except FileNotFoundError as err:
        raise SetupError(
            "git is not installed here, and a git URL is cloned by your own git."
        ) from err
    try:
        code = await git.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            git.kill()
        await git.wait()
        raise
    if code:
        raise InvalidInput(f"git could not clone {url} (exit code {code}); see above.")


def pack(folder: Path, archive: Path) -> int:
    """Write the folder's files to `archive` and say how many. Raises InvalidInput, SetupError."""
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}. --project takes a folder or a git URL.")
    count = 0
    with tarfile.open(
        archive, "w:gz", format=tarfile.PAX_FORMAT, compresslevel=_COMPRESSION
    ) as tar:
        for name in sorted(files_of(folder)):
            count += _add(tar, folder, name)
    return count


def files_of(folder: Path) -> Iterator[str]:
    """Names of what belongs to the project: by git where it is a work tree, else all but the obvious."""
    listed = _git_files(folder)
    if listed is None:
        yield from _all_files(folder)
        return
    for name in listed:
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # a submodule, or a work tree inside this one
            yield from (f"{name.rstrip('/')}/{inner}" for inner in files_of(path))
        else:
            yield name


def _git_files(folder: Path) -> list[str] | None:
    """Tracked and untracked files that are not ignored; None where git does not look after the folder."""
    command = ("git", "-C", str(folder), "ls-files", "-co", "--exclude-standard", "-z")
    try:
        listed = subprocess.run(  # noqa: S603 - the caller's own git in the caller's own folder
            command, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        if (folder / ".git").exists():
            raise SetupError(
                f"{folder} is a git repository, but git is not installed here."
            ) from None
        return None
    if listed.returncode == 0:
        return [os.fsdecode(name) for name in dict.fromkeys(listed.stdout.split(b"\0")) if name]
    if (folder / ".git").exists():
        raise InvalidInput(
            f"git cannot read {folder}: {listed.stderr.decode(errors='replace').strip()}"
        )
    return None


def _all_files(folder: Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _LEFT_BEHIND)
        links = [name for name in folders if Path(where, name).is_symlink()]
        for name in (*links, *files):
            if name not in _LEFT_BEHIND:
                yield os.path.relpath(Path(where, name), folder)


def _add(tar: tarfile.TarFile, folder: Path, name: str) -> bool:
    """Add one file or link; False for what is gone meanwhile or is neither (a socket, a device)."""
    path = folder / name
    entry = tarfile.TarInfo(name)
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
            tar.addfile(entry)
            return True
        if not stat.S_ISREG(found.st_mode):
            return False
        with open(path, "rb", opener=_without_following) as content:
            _add_content(tar, entry, content)
    except FileNotFoundError:
        return False
    except OSError as err:
        raise InvalidInput(
            f"Cannot pack {path}: {err.strerror or 'it changed meanwhile; try again'}."
        ) from err
    return True


def _add_content(tar: tarfile.TarFile, entry: tarfile.TarInfo, content: BinaryIO) -> None:
    found = os.fstat(content.fileno())
    entry.size, entry.mtime = found.st_size, int(found.st_mtime)
    entry.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
    tar.addfile(entry, content)


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)

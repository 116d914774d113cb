"""Copies of everything that is kept as files, made beside whoever uses it, and put back into an empty folder.

All of it blocks: call it in a thread.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zene.domain.errors import Unavailable
from zene.workspaces import folders, front, images, snapshot
from zene.workspaces.storage import checked_name
from zene.workspaces.workspaces import PROJECTS, SESSIONS

OUTPUTS = "outputs"


def copy_files(
    data_dir: Path, target: Path, *, sessions: Iterable[str], projects: Iterable[str]
) -> None:
    """Copy what is kept of these sessions and projects into a new folder. An image is copied as it was at one
    moment; of a plain folder, files that change meanwhile may be of two. Raises OSError, Unavailable.
    """
    for kind, names in ((SESSIONS, sessions), (PROJECTS, projects)):
        (target / kind).mkdir(mode=0o700, parents=True)
        for name in map(checked_name, names):
            with suppress(FileNotFoundError):  # it was never made, or deleted by now
                _copy_image(data_dir / kind / f"{name}.img", target / kind / f"{name}.img")
            with suppress(FileNotFoundError):
                folders.snapshot(data_dir / kind / name, target / kind / name)
            beginning = front.place_of(data_dir / kind / name)
            if beginning.exists():
                shutil.copy2(beginning, target / kind)
    (target / OUTPUTS).mkdir(mode=0o700)
    for session in sessions:
        if (data_dir / OUTPUTS / session).is_dir():
            shutil.copytree(data_dir / OUTPUTS / session, target / OUTPUTS / session)


def put_back(source: Path, data_dir: Path) -> None:
    """Copy what `copy_files` made into a data folder that has nothing of it yet. Raises OSError."""
    for kind in (SESSIONS, PROJECTS):
        (data_dir / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (source / kind).iterdir():
            if place.suffix == ".img":
                images.copy_sparse(place, data_dir / kind / place.name)
            elif place.is_dir():
                folders.snapshot(place, data_dir / kind / place.name)
            else:
                shutil.copy2(place, data_dir / kind)
    shutil.copytree(source / OUTPUTS, data_dir / OUTPUTS, dirs_exist_ok=True)


def _copy_image(source: Path, target: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(source)
    argv = (sys.executable, "-m", snapshot.__name__, str(source), str(target))
    copied = subprocess.run(  # noqa: S603 - ours
        argv, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False
    )
    if copied.returncode == snapshot.TOO_LATE:
        raise Unavailable(
            f"{source.name} could not be copied within the {snapshot.SECONDS} s that its session may be held up. "
            "Copy the data folder while Zene is stopped."
        )
    if copied.returncode:
        raise OSError(f"{source.name} was not copied: {copied.stderr.decode(errors='replace')}")

"""The real source distribution that the recorded run works on, and what its tests import; fetched once for ever."""

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

SECONDS = 100


def make_project(folder: Path) -> Path:
    """marshmallow 3.13.0 as a git project with one commit."""
    archive = _cached("marshmallow-3.13.0", _download) / "marshmallow-3.13.0.tar.gz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    project = folder / "marshmallow-3.13.0"
    identity = ("-c", "user.name=Tests", "-c", "user.email=tests@zene.test")
    for command in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "3.13.0")):
        _run("git", "-C", str(project), *command)
    return project


def requirements() -> Path:
    """A folder with what the distribution's own tests import."""
    return _cached("marshmallow-tests-1", _install)


def _download(folder: Path) -> None:
    options = ("--no-deps", "--no-binary=marshmallow", "--dest", str(folder))
    _run(sys.executable, "-m", "pip", "download", "--quiet", *options, "marshmallow==3.13.0")


def _install(folder: Path) -> None:
    wanted = ("pytest==8.4.2", "simplejson==3.20.1", "pytz==2025.2")
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *wanted)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made whole or not at all, whoever else makes it at the same time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "zene-tests"
    made = base / name
    if not made.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as scratch:
            making = Path(scratch) / name
            making.mkdir()
            make(making)
            try:
                making.rename(made)
            except OSError:
                assert made.exists(), f"{made} was not made"
    return made


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"

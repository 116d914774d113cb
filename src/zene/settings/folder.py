"""The data folder: whose it is, whose installation's, and the key that seals what is secret in the store.

One `zene up`, or any number of workers, hold the folder's lock.
"""

import fcntl
import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zene.domain.errors import SetupError
from zene.settings.values import Settings

SHORTEST_KEY = 32  # characters of ZENE_SECRET_KEY
KEY, _MARKER, _HOME, _RESTORING = "secret.key", "installation", "home", "restoring"


@contextmanager
def claimed(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the folder for this process, alone or `shared` with its like. Raises SetupError that tells who
    has it.
    """
    prepared(folder)
    lock = _opened(folder / "lock")
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 100).decode(errors="replace").strip()
            raise SetupError(
                f"{folder} is in use by another Zene server (process {holder}). Stop it, or choose "
                "another folder with --data-dir."
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def marker(folder: Path) -> str | None:
    """The id of the installation that the folder belongs to; None where it belongs to none yet."""
    return _kept(folder / _MARKER)


def mark(folder: Path, installation_id: str) -> None:
    """Let the folder belong to that installation. Raises SetupError where it belongs to another."""
    found = _kept_once(folder / _MARKER, lambda: installation_id)
    check_marker(folder, found, installation_id)


def check_marker(folder: Path, found: str | None, installation_id: str) -> None:
    """Raise SetupError where a folder with that marker is not the installation's."""
    if found is None:
        raise SetupError(
            f"{folder} is not the data folder of the installation in the store: it has no marker. Set "
            "ZENE_DATA_DIR to the folder that all workers share (is it mounted?), or, for a new "
            "installation, run `zene migrate` with it."
        )
    if found != installation_id:
        raise SetupError(
            f"{folder} belongs to installation {found}, and the store to {installation_id}. Set "
            "ZENE_DATA_DIR or ZENE_STORE to the other's."
        )


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Let the folder be none of an installation's until the block has come to its end."""
    sign = folder / _RESTORING
    sign.touch()
    yield
    sign.unlink()


def check_restored(folder: Path) -> None:
    """Raise SetupError where a restore has begun and not come to its end."""
    if (folder / _RESTORING).exists():
        raise SetupError(
            f"A restore into {folder} has not come to its end. Empty this folder and the store that it was "
            "for, and run `zene restore` again."
        )


def home(folder: Path) -> str:
    """What names the place where the folder's workspaces can be reached, made once. A host's name alone would
    not do: that of a container changes with each one.
    """
    return _kept_once(folder / _HOME, lambda: f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}")


def make_key(settings: Settings) -> None:
    """Make the folder's key, unless there is one or ZENE_SECRET_KEY is set."""
    if not settings.secret_key:
        _kept_once(settings.data_dir / KEY, lambda: secrets.token_hex(32))


def secret_key(settings: Settings) -> bytes:
    """The key of 32 bytes that ZENE_SECRET_KEY or else the folder's key stands for. Raises SetupError."""
    given = settings.secret_key.reveal() if settings.secret_key else ""
    if given and len(given) < SHORTEST_KEY:
        raise SetupError(f"ZENE_SECRET_KEY needs {SHORTEST_KEY} characters or more.")
    text = given or _kept(settings.data_dir / KEY)
    if not text:
        raise SetupError(
            "The installation's key is not here. Set ZENE_SECRET_KEY to the same text of "
            f"{SHORTEST_KEY} characters or more for `zene migrate` and every gateway, or let "
            f"ZENE_DATA_DIR be the folder that has the installation's {KEY}."
        )
    return hashlib.sha256(text.encode()).digest()


def prepared(folder: Path) -> Path:
    """The folder, made if missing, for its owner alone. Raises SetupError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise SetupError(f"Cannot make the data folder {folder}: {err.strerror}.") from err
    return folder


def _kept(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _kept_once(path: Path, make: Callable[[], str]) -> str:
    prepared(path.parent)
    with _opened_alone(path) as file:
        text = os.pread(file, 200, 0).decode().strip()
        if not text:
            text = make()
            os.pwrite(file, f"{text}\n".encode(), 0)
            os.fsync(file)
        return text


@contextmanager
def _opened_alone(path: Path) -> Iterator[int]:
    """The file, made if missing, while nobody else has it."""
    file = _opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    """The file, made if missing, for its owner alone. Raises SetupError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise SetupError(
            f"Cannot write {path}: {err.strerror}. Choose another data folder with --data-dir, or start "
            "Zene as the user that it belongs to."
        ) from err

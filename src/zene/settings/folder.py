"""The data folder: whose it is, its installation's id, and the key that seals what is secret in the store.

One server at a time holds the folder's lock, so that every lease it finds at its start is a dead one's.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zene.domain.errors import SetupError
from zene.settings.values import Settings

SHORTEST_KEY = 32  # characters of ZENE_SECRET_KEY


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises SetupError that tells who has it."""
    prepared(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def installation_id(folder: Path) -> str:
    """What names this installation on its machine, made once: 16 hexadecimal digits."""
    return _kept_once(folder / "installation", lambda: secrets.token_hex(8))


def secret_key(settings: Settings) -> bytes:
    """The key of 32 bytes that `secret_key` stands for, or the folder's own, made once. Raises SetupError."""
    given = settings.secret_key.reveal() if settings.secret_key else ""
    if given and len(given) < SHORTEST_KEY:
        raise SetupError(f"ZENE_SECRET_KEY needs {SHORTEST_KEY} characters or more.")
    text = given or _kept_once(settings.data_dir / "secret.key", lambda: secrets.token_hex(32))
    return hashlib.sha256(text.encode()).digest()


def prepared(folder: Path) -> Path:
    """The folder, made if missing, for its owner alone. Raises SetupError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise SetupError(f"Cannot make the data folder {folder}: {err.strerror}.") from err
    return folder


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
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)

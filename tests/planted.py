"""Secrets that the tests plant, looked for in everything that a server stored, logged, said or sent.

Each is looked for as it is, quoted for a URL, and in base64 at each of its three alignments.
"""

import base64
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

KEY = "sk-the-key-of-the-tests"  # the provider's
PASSWORD = "correct horse battery"

SHORTEST = 8  # characters; what is shorter is found anywhere by chance
PIECE = 1 << 20


def check_none(data: bytes, where: str, secrets: Iterable[str] = (KEY, PASSWORD)) -> None:
    """Fail where one of them is in it."""
    for secret in secrets:
        if len(secret) >= SHORTEST:
            assert not any(form in data for form in forms(secret)), f"{secret!r} is in {where}"


def check_none_below(folder: Path, secrets: Iterable[str], *, but_in: Iterable[Path]) -> None:
    """Look through every file below a folder, except those that are there to hold a secret."""
    known = set(but_in)
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) not in known]
        for path in (Path(parent, name) for name in names):
            if path not in known and path.is_file() and not path.is_symlink():
                check_none(b"".join(_pieces(path)), str(path), secrets)


def forms(secret: str) -> set[bytes]:
    """All ways in which it is looked for."""
    plain = secret.encode()
    found = {plain, quote(secret).encode(), quote_plus(secret).encode()}
    for before in range(3):
        # What its own bytes alone decide: the characters that a neighbour reaches into are left out.
        whole = base64.b64encode(bytes(before) + plain)
        first = (before * 8 + 5) // 6
        last = (before + len(plain)) * 8 // 6
        found |= {whole[first:last], base64.urlsafe_b64encode(bytes(before) + plain)[first:last]}
    return found


def _pieces(path: Path) -> Iterator[bytes]:
    """What a file holds without its holes, since an image of a workspace is nearly nothing else."""
    with path.open("rb") as file:
        end, at = path.stat().st_size, 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # there is nothing but a hole up to the end
                return
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            while at < hole:
                data = os.pread(file.fileno(), min(PIECE, hole - at), at)
                if not data:
                    return
                yield data
                at += len(data)

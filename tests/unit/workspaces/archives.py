"""Archives for tests: honest ones, and the ones that `hostile/files.json` names by their maker."""

import gzip
import io
import subprocess
import tarfile
import zipfile
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

MTIME = 1_600_000_000


def archive(contents: Mapping[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A .tar.gz of regular files."""
    return packed([(_info(name, size=len(data)), data) for name, data in contents.items()], form)


def archive_of(members: Iterable[Mapping[str, Any]]) -> bytes:
    """A .tar.gz of what the data file describes: a file unless `link`, `same` or `type` is given."""
    made = []
    for member in members:
        info = _info(member["name"])
        if "link" in member:
            info.type, info.linkname = tarfile.SYMTYPE, member["link"]
        elif "same" in member:
            info.type, info.linkname = tarfile.LNKTYPE, member["same"]
        elif "type" in member:
            info.type = member["type"].encode()
        else:
            info.size = 1
        made.append((info, b"x" * info.size))
    return packed(made)


def packed(
    members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT
) -> bytes:
    """Compress them in this order."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def git_archive(folder: Path) -> bytes:
    """A repository of two commits on a branch, with all that is hostile in a `.git` folder."""
    folder.mkdir()
    identity = (
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@localhost",
        "-c",
        "init.defaultBranch=main",
    )
    for number, subject in enumerate(("first", "second")):
        (folder / "file.txt").write_text(f"{number}\n")
        if number == 0:
            _git(folder, *identity, "init", "-q")
        else:
            _git(folder, "checkout", "-q", "-b", "feature")
        _git(folder, "add", ".")
        _git(folder, *identity, "commit", "-q", "-m", subject)
    planted = {
        ".git/hooks/post-checkout": "#!/bin/sh\ntouch /workspace/owned\n",
        ".git/config": "[core]\n\tfsmonitor = touch /workspace/owned\n",
        ".git/info/attributes": "* filter=evil\n",
        ".git/objects/info/alternates": "/baseline/objects\n",
        "vendored/.git/config": "[core]\n\tfsmonitor = touch /workspace/owned\n",
        "vendored/code.py": "pass\n",
    }
    for name, text in planted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    return raw.getvalue()


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(("git", "-C", str(folder), *arguments), check=True, capture_output=True)


async def chunks(data: bytes, size: int = 1 << 16) -> AsyncGenerator[bytes, None]:
    """The upload of it."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def _info(name: str, *, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, MTIME
    return info


def _raw(name: bytes, kind: bytes, size: int, data: bytes) -> bytes:
    """A header as no library writes it, and what follows it."""
    field = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    start = name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"%011o\0" % MTIME
    rest = kind + bytes(100) + b"ustar\x0000" + bytes(247)
    total = sum(start) + sum(rest) + 8 * 32
    header = start + b"%06o\0 " % total + rest
    assert len(header) == 512
    return header + data + bytes(-len(data) % 512)


def _end() -> bytes:
    return bytes(1024)


def _long_name() -> bytes:
    return archive({"n" * 256: b"x"})


def _long_path() -> bytes:
    return archive({"d/" * 2045 + "long": b"x"})


def _deep_folders() -> bytes:
    return archive({"d/" * 5000 + "x": b"x"})


def _legally_deep_folders() -> bytes:
    return archive({"d/" * 2000 + "x": b"x"})


def _sparse_terabyte() -> bytes:
    return gzip.compress(_raw(b"sparse", b"S", 1 << 40, b"") + _end())


def _claimed_terabyte() -> bytes:
    return gzip.compress(_raw(b"file", b"0", 1 << 40, b"") + _end())


def _zip_file() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        file.writestr("x", b"\0" * 1000)
    return raw.getvalue()


def _nothing() -> bytes:
    return b""


def _compressed_text() -> bytes:
    return gzip.compress(b"this is no tar archive, but long enough to be taken for a header " * 20)


def _bomb() -> bytes:
    return gzip.compress(_raw(b"zeros", b"0", 200 << 20, bytes(200 << 20)) + _end(), 1)


def _concatenated_bombs() -> bytes:
    header = gzip.compress(_raw(b"zeros", b"0", 200 << 20, b""))
    return header + gzip.compress(bytes(10 << 20)) * 20


def _pax_gigabyte() -> bytes:
    return gzip.compress(_raw(b"pax", b"x", 1 << 30, bytes(4 << 20)))


def _long_name_gigabyte() -> bytes:
    return gzip.compress(_raw(b"././@LongLink", b"L", 1 << 30, bytes(4 << 20)))


def _pax_sparse() -> bytes:
    record = b"28 GNU.sparse.realsize=9999\n"
    return gzip.compress(
        _raw(b"pax", b"x", len(record), record) + _raw(b"x", b"0", 1, b"x") + _end()
    )


def _hidden_behind_the_end() -> bytes:
    return gzip.compress(_raw(b"x", b"0", 1, b"x") + _end() + _raw(b"y", b"0", 1, b"y") + _end())


def _cut_off() -> bytes:
    whole = archive({"x": bytes(range(256)) * 1000})
    return whole[: len(whole) // 2]


def _flipped_byte() -> bytes:
    whole = bytearray(gzip.compress(_raw(b"x", b"0", 100_000, b"x" * 100_000) + _end(), 0))
    whole[50_000] ^= 1
    return bytes(whole)


def _too_many_files() -> bytes:
    return archive({f"d{i % 50}/{i}": b"" for i in range(9000)})


MAKERS: Mapping[str, Callable[[], bytes]] = {
    maker.__name__.removeprefix("_"): maker
    for maker in (
        *(_long_name, _long_path, _deep_folders, _legally_deep_folders, _sparse_terabyte),
        *(_claimed_terabyte, _zip_file, _nothing, _compressed_text, _bomb, _concatenated_bombs),
        *(_pax_gigabyte, _long_name_gigabyte, _pax_sparse, _hidden_behind_the_end, _cut_off),
        *(_flipped_byte, _too_many_files),
    )
}

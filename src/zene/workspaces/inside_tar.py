"""Runs inside a sandbox: reads a .tar.gz as a stream, strictly and with bounded memory.

Where tar programs are lenient this refuses: what is damaged or cut off, headers that claim a gigabyte,
sparse files, unknown types, and anything behind the end mark.
"""

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from zene.workspaces.inside_answer import Refused

BLOCK, CHUNK = 512, 1 << 16
MAX_HEADER = 1 << 20  # of a long name or of pax records


def damaged(what: str) -> Refused:
    """What to say of an archive that cannot be read to its end."""
    return Refused(422, "archive_damaged", "the archive is damaged: " + what)


def unsafe(name: bytes, why: str) -> Refused:
    """What to say of a member that is not taken, and with it the archive."""
    shown = ascii(os.fsdecode(name[:200]))
    return Refused(422, "archive_refused", f"the archive is refused: {shown} {why}")


class Gunzip:
    """Decompresses a stream, up to `limit` bytes in all."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = source
        self._left = limit
        self._pending = source.read(CHUNK)
        self._out = b""
        if not self._pending.startswith(b"\x1f\x8b"):
            raise Refused(415, "archive_format", "send a tar archive that is compressed with gzip")
        self._member = zlib.decompressobj(31)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes, for small counts."""
        parts = []
        while count:
            part = self.some(count)
            if not part:
                raise damaged("it ends early")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def some(self, most: int) -> bytes:
        """The next bytes, at most so many; none at the end."""
        while not self._out:
            if self._member.eof and not self._next_member():
                return b""
            self._out = self._inflate()
        part, self._out = self._out[:most], self._out[most:]
        return part

    def _inflate(self) -> bytes:
        raw = self._member.unconsumed_tail or self._pending or self._source.read(CHUNK)
        self._pending = b""
        if not raw:
            raise damaged("it ends early")
        try:
            out = self._member.decompress(raw, CHUNK)
        except zlib.error as err:
            raise damaged(str(err)) from None
        self._left -= len(out)
        if self._left < 0:
            raise Refused(413, "archive_too_large", "the archive unpacks to more than is allowed")
        return out

    def _next_member(self) -> bool:
        rest = self._member.unused_data or self._source.read(CHUNK)
        while rest and not rest.strip(b"\0"):  # padding of tapes and some tools
            rest = self._source.read(CHUNK)
        if not rest:
            return False
        self._pending = rest
        self._member = zlib.decompressobj(31)
        return True


class Member(NamedTuple):
    """A file, folder ("dir"), symbolic link or hard link ("same") of the archive."""

    kind: str
    name: bytes
    size: int
    mode: int
    mtime: float
    target: bytes


KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"1": "same", b"2": "link", b"5": "dir"}
REFUSED_KINDS = {b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


def members(tar: Gunzip) -> Iterator[Member]:
    """Each member; its `size` bytes must be taken with `content` before the next one is asked for."""
    common: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    while True:
        header = tar.exactly(BLOCK)
        if not header.strip(b"\0"):
            _expect_zeros(tar)
            return
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"g"):
            (own if kind == b"x" else common).update(_pax(_extension(tar, size)))
        elif kind in (b"L", b"K"):
            own[b"path" if kind == b"L" else b"linkpath"] = _extension(tar, size).rstrip(b"\0")
        else:
            yield _member(header, kind, size, {**common, **own})
            own = {}


def _member(header: bytes, kind: bytes, size: int, extra: dict[bytes, bytes]) -> Member:
    name = extra.get(b"path") or _short_name(header)
    if kind not in KINDS:
        raise unsafe(name, "is " + REFUSED_KINDS.get(kind, "of an unknown type"))
    if any(key.startswith(b"GNU.sparse") for key in extra):
        raise unsafe(name, "is a sparse file")
    if b"size" in extra:
        size = _decimal(extra[b"size"])
    what = KINDS[kind]
    if what == "file" and name.endswith(b"/"):
        what = "dir"
    if what == "same" and size:
        raise unsafe(name, "is a hard link with content of its own")
    if what in ("dir", "link"):
        size = 0
    mtime = float(_decimal(extra.get(b"mtime", b"").split(b".")[0] or _header_mtime(header)))
    target = extra.get(b"linkpath") or header[157:257].split(b"\0")[0]
    return Member(what, name, size, _number(header[100:108]), mtime, target)


def _header_mtime(header: bytes) -> bytes:
    return b"%d" % _number(header[136:148])


def _short_name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _check_sum(header: bytes) -> None:
    if _number(header[148:156]) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise damaged("a header's checksum is wrong, or it is no tar archive")


def _number(field: bytes) -> int:
    """Octal digits, or what GNU tar writes where these do not suffice."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise damaged("a header has a wrong number in it")
    return int(digits or b"0", 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise damaged("a header has a wrong number in it")
    return int(text)


def _extension(tar: Gunzip, size: int) -> bytes:
    if size > MAX_HEADER:
        raise Refused(413, "archive_too_large", "a header of the archive is too large")
    data = tar.exactly(size)
    tar.exactly(-size % BLOCK)
    return data


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form "length key=value\\n"."""
    found: dict[bytes, bytes] = {}
    while data:
        length = _decimal(data.split(b" ", 1)[0])
        record, data = data[:length], data[length:]
        key, sign, value = record.partition(b" ")[2].partition(b"=")
        if len(record) != length or not sign or not value.endswith(b"\n"):
            raise damaged("a header has a wrong record in it")
        found[key] = value[:-1]
    return found


def content(tar: Gunzip, size: int) -> Iterator[bytes]:
    """A member's bytes, to the last, and what fills its last block."""
    left = size
    while left:
        part = tar.some(min(left, CHUNK))
        if not part:
            raise damaged("it ends early")
        left -= len(part)
        yield part
    tar.exactly(-size % BLOCK)


def _expect_zeros(tar: Gunzip) -> None:
    """Read to the end, so that the checksum of the whole is checked and nothing hides behind the end mark."""
    while True:
        part = tar.some(CHUNK)
        if not part:
            return
        if part.strip(b"\0"):
            raise damaged("there is something behind its end")

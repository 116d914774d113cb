"""What the kernel says of a file, in Zene's words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from zene.domain.errors import Conflict, InvalidInput, NotFound, TooLarge, Unavailable, ZeneError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = {
    errno.EXDEV: ("leads out of the workspace", "path_refused"),
    errno.ELOOP: ("goes round in links", "path_refused"),
    errno.ENAMETOOLONG: ("is too long", "path_refused"),
    errno.EACCES: ("may not be accessed with the permissions it has", "not_permitted"),
    errno.EPERM: ("may not be accessed with the permissions it has", "not_permitted"),
    errno.EISDIR: ("is a folder", "not_a_file"),
    errno.ENOTDIR: ("is not a folder, or goes through a file", "not_a_folder"),
    errno.ENXIO: ("is not a regular file", "not_a_file"),
    errno.ENOTEMPTY: ("is a folder", "not_a_file"),
}


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn an OSError about `path` into NotFound, InvalidInput, Conflict, TooLarge or Unavailable."""
    try:
        yield
    except OSError as err:
        raise _explain(err, path) from err


def _explain(err: OSError, path: str) -> ZeneError:
    shown = ascii((path or ".")[:200])
    if err.errno == errno.ENOENT:
        return NotFound(f"{shown} does not exist in the workspace")
    if err.errno == errno.EEXIST:
        return Conflict(f"{shown} exists already", code="exists")
    if err.errno in FULL:
        return TooLarge(f"{shown} does not fit: the workspace is full", code="workspace_full")
    if err.errno in _REFUSED:
        why, code = _REFUSED[err.errno]
        return InvalidInput(f"{shown} {why}", code=code)
    return Unavailable(f"{shown} cannot be accessed: {err.strerror}", code="workspace_unreadable")

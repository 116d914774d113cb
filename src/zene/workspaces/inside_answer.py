"""Runs inside a sandbox: how this package's scripts answer, and what they say when they refuse.

These scripts are sent as text to a Python of the host, 3.9 or later, that has nothing but its own library.
"""

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Refused(Exception):
    """The input is not taken; `status` and `code` are for the HTTP answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def answer(work: Callable[[dict[str, Any]], tuple[dict[str, Any], bytes]]) -> None:
    """Do the work with the options given, and write its answer as a line of JSON, then its bytes."""
    rest = b""
    try:
        said, rest = work(json.loads(sys.argv[1]))
        told: dict[str, Any] = {"ok": said}
    except Refused as refused:
        told = _refusal(refused.status, refused.code, str(refused))
    except OSError as err:
        if err.errno in FULL:
            told = _refusal(413, "workspace_full", "this does not fit into a workspace")
        else:
            told = _refusal(422, "not_possible", f"the files do not allow this: {err.strerror}")
    write_all(1, json.dumps(told).encode() + b"\n")
    write_all(1, rest)


def _refusal(status: int, code: str, message: str) -> dict[str, Any]:
    return {"refused": {"status": status, "code": code, "message": message}}


def write_all(fd: int, data: bytes) -> None:
    """All of it, however much the kernel takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

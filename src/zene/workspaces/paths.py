"""Paths as callers write them: relative to the workspace, or absolute below /workspace.

Only the form is checked here. Whether a link leads out is for the kernel to decide when it is opened.
"""

import os
import unicodedata

from zene.domain.errors import InvalidInput

ROOT = "/workspace"
MAX_PATH, MAX_NAME = 4096, 255  # bytes, as in Linux


def inside(path: str) -> str:
    """The path relative to the workspace, "" for the workspace itself. Raises InvalidInput."""
    _check_length(path)
    if path == ROOT or path.startswith(ROOT + "/"):
        path = path[len(ROOT) :].lstrip("/")
    if path.startswith("/"):
        raise _refused(path, "is outside of the workspace; give a path relative to /workspace")
    parts: list[str] = []
    for name in path.split("/"):
        if name == "..":
            if not parts:
                raise _refused(path, "leads out of the workspace")
            parts.pop()
        elif name not in ("", "."):
            _check_name(path, name)
            parts.append(name)
    return "/".join(parts)


def for_writing(path: str) -> str:
    """As `inside`, for a file to be written: it has a plain name and is not git's own."""
    relative = inside(path)
    if not relative or path.endswith(("/", "/.", "/..")):
        raise _refused(path, "is a folder; name a file")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in relative):
        raise _refused(path, "has control characters in its name")
    if is_gits_own(relative):
        raise gits_own(path)
    return relative


def is_gits_own(relative: str) -> bool:
    """Whether it is below a `.git`, where a written file can make the next git command run programs."""
    return any(name.lower() == ".git" for name in relative.split("/"))


def gits_own(path: str) -> InvalidInput:
    """What to say to who wants to write there."""
    return InvalidInput(
        f"{path!a} belongs to git; use git commands to change it", code="path_denied"
    )


def _check_length(path: str) -> None:
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raise _refused(path, "is not valid Unicode") from None
    if len(raw) > MAX_PATH:
        raise _refused(path, f"has more than {MAX_PATH} bytes")
    if b"\0" in raw:
        raise _refused(path, "has a NUL character in it")


def _check_name(path: str, name: str) -> None:
    if len(os.fsencode(name)) > MAX_NAME:
        raise _refused(path, f"has a name of more than {MAX_NAME} bytes in it")


def _refused(path: str, why: str) -> InvalidInput:
    shown = path if len(path) <= 200 else path[:200] + "…"
    return InvalidInput(f"{shown!a} {why}", code="path_refused")

"""Paths as the model names them. Everything the tools touch lies below /workspace and is named from there."""

import posixpath

from zene.domain.errors import InvalidInput

ROOT = "/workspace"


def inside(path: str) -> str:
    """The path relative to /workspace, `.` for the folder itself. Raises InvalidInput for any other place."""
    if "\0" in path:
        raise InvalidInput("Not done: the path holds a NUL character.")
    absolute = posixpath.normpath(posixpath.join(ROOT, path))
    if absolute != ROOT and not absolute.startswith(f"{ROOT}/"):
        raise InvalidInput(f"Not done: {path!r} is outside {ROOT}; shell can look there.")
    return posixpath.relpath(absolute, ROOT)

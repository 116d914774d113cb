"""The few files that every task begins with, kept beside a project so that nobody need mount it for them.

A model is asked a first question some 5 ms sooner: as long as a session has no workspace of its own, what
its files would hold is known from the project's.
"""

import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path

import msgspec

from zene.agent.prompts import RULES_FILES, RULES_LIMIT
from zene.domain.errors import InvalidInput, NotFound
from zene.workspaces.files import Files

Front = Mapping[str, bytes]  # those of RULES_FILES that there are, to RULES_LIMIT + 1 bytes


def place_of(project: Path) -> Path:
    """Where the front of a project is kept."""
    return project.with_suffix(".front")


async def taken(files: Files) -> Front:
    """The front of a workspace that is open."""
    found = {}
    for name in RULES_FILES:
        try:
            found[name] = await files.read(name, RULES_LIMIT + 1)
        except (NotFound, InvalidInput):
            continue
    return found


def keep(project: Path, front: Front) -> None:
    """Write it beside the project, whole or not at all."""
    place = place_of(project)
    making = place.with_suffix(".front-new")
    making.write_bytes(msgspec.json.encode({k: b64encode(v).decode() for k, v in front.items()}))
    os.replace(making, place)  # noqa: PTH105 - as everywhere here


def forget(project: Path) -> None:
    """Whoever asks has to look into the project itself. Harmless when there is none."""
    place_of(project).unlink(missing_ok=True)


def kept(project: Path) -> Front | None:
    """The front of a project, empty for an empty one; None where it is not known."""
    if not project.exists():
        return {}
    try:
        found = msgspec.json.decode(place_of(project).read_bytes(), type=dict[str, str])
        return {name: b64decode(content) for name, content in found.items()}
    except (OSError, ValueError):
        return None

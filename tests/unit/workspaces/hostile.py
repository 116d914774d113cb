"""The cases of tests/data/hostile/files.json."""

import json
from pathlib import Path
from typing import Any

from tests.unit.workspaces.archives import MAKERS, archive_of

_FILE = Path(__file__).parents[2] / "data/hostile/files.json"
KEPT = "kept"


def cases(kind: str) -> list[dict[str, Any]]:
    """Those of a kind."""
    found = json.loads(_FILE.read_text())["cases"]
    return [case for case in found if case["kind"] == kind]


def path_of(case: dict[str, Any]) -> str:
    """The path, repeated where the case says so."""
    return str(case["path"]) * int(case.get("repeat", 1))


def archive_for(case: dict[str, Any]) -> bytes:
    """The archive's bytes."""
    return MAKERS[case["maker"]]() if "maker" in case else archive_of(case["members"])

"""Copying an installation, and making one from a copy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zene.cli import terminal
from zene.cli.installation import load
from zene.wiring import backup as copying


async def backup(*, folder: Path, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Copy store, files and key into a new folder, while Zene runs."""
    settings = load(config, overrides)
    made = await copying.backup(settings, folder)
    counts = ", ".join(f"{made.rows[table]} {table}" for table in ("users", "projects", "sessions"))
    terminal.say(f"{folder} holds installation {made.installation}: {counts}.")
    terminal.say(
        "The key is in it: keep it as safe as the installation itself."
        if made.has_key
        else "The key is not in it, since ZENE_SECRET_KEY is set: keep that, too."
    )
    return 0


async def restore(*, folder: Path, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Make a new installation from a backup, in an empty store and data folder."""
    settings = load(config, overrides)
    name = await copying.restore(settings, folder)
    terminal.say(
        f"Restored {folder} as installation {name}, in {settings.data_dir} and {settings.store_shown}."
    )
    terminal.say("Start it as before: unfinished tasks go on.")
    return 0

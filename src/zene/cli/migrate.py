"""Making an installation, and bringing it to this release."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zene.cli import terminal
from zene.cli.installation import load
from zene.store import users
from zene.wiring import migrate as making
from zene.wiring.parts import opened_store


async def migrate(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Make what is missing; twice is harmless. An existing SQLite database is copied first."""
    settings = load(config, overrides)
    async with opened_store(settings) as store:
        made = await making.make(settings, store, make_up_password=False)
        count = await store.read(users.count_users)
    terminal.say(f"{settings.store_shown} of installation {made.id} has this release's schema.")
    terminal.say(f"Its data folder is {settings.data_dir}.")
    if made.administrator:
        terminal.say(f"{terminal.safe(made.administrator)} is its first administrator.")
    if not count:
        terminal.say(
            "As ZENE_ADMIN_PASSWORD is not set, there is no user yet: zene user add EMAIL --role admin"
        )
    return 0

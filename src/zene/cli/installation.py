"""What commands that work on the data folder itself share: the settings, the store, and asking for a password."""

import getpass
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from zene import settings, telemetry
from zene.cli import terminal
from zene.domain.errors import InvalidInput
from zene.settings import Settings
from zene.store.base import Store
from zene.wiring.parts import opened_store


def load(config: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """The installation's settings, with logs set up as they say. Raises SetupError."""
    loaded = settings.load(os.environ, config=config, overrides=overrides)
    telemetry.set_up(loaded.log_format, secrets=loaded.secrets())
    return loaded


@asynccontextmanager
async def opened(loaded: Settings) -> AsyncIterator[Store]:
    """The store with this release's schema, beside a running server or without one; told where there was none."""
    is_new = (file := store_file(loaded)) is not None and not file.exists()
    async with opened_store(loaded) as store:
        await store.migrate()
        if is_new:
            terminal.note(
                f"There was no Zene in {loaded.data_dir}: began one. --data-dir names another."
            )
        yield store


def store_file(loaded: Settings) -> Path | None:
    """The SQLite database's file; None where the store is another."""
    scheme, _, path = loaded.store_url.partition(":///")
    return Path(path) if scheme == "sqlite" else None


def new_password(whose: str) -> tuple[str, bool]:
    """A password, and whether it was made up: asked for twice on a terminal, else the first line of
    stdin, else made up. Raises InvalidInput where the two differ.
    """
    with terminal.interruptible():
        if not sys.stdin.isatty():
            given = sys.stdin.readline().rstrip("\r\n")
            return (given, False) if given else (secrets.token_urlsafe(15), True)
        password = getpass.getpass(f"New password for {whose} (empty to have one made up): ")
        if not password:
            return secrets.token_urlsafe(15), True
        if getpass.getpass("Again: ") != password:
            raise InvalidInput("The two passwords differ. Nothing was changed.")
    return password, False

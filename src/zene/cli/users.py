"""Users, on the data folder's own store: a running server sees a change within five seconds."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zene.cli import terminal
from zene.cli.installation import load, new_password, opened
from zene.domain.errors import NotFound, SetupError
from zene.domain.ids import RANDOM_BYTES, make_id
from zene.domain.users import Role, User, email_address
from zene.gateway.passwords import Passwords
from zene.store import users
from zene.store.base import Store
from zene.wiring.worker import probe_sandboxes, users_refused

PAGE = 200


async def add(*, email: str, role: Role, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Add a user. Raises Conflict for an e-mail that is taken, SetupError where the machine is too weak."""
    settings, email = load(config, overrides), email_address(email)
    async with opened(settings) as store:
        if refusal := users_refused(settings, await probe_sandboxes(settings)):
            raise SetupError(refusal)
        password, made_up = new_password(email)
        hashed = await Passwords().hash(password)
        user_id = make_id("usr", _now(), secrets.token_bytes(RANDOM_BYTES))
        await store.write(users.create_user, user_id, email, hashed, Role(role), _now())
    terminal.say(f"Added {terminal.safe(email)} as {role}.")
    _say_made_up(password, made_up=made_up)
    return 0


async def show(*, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """List all users."""
    async with opened(load(config, overrides)) as store:
        cursor, rows = None, []
        while True:
            page, cursor = await store.read(users.list_users, cursor, PAGE)
            rows += [
                (each.email, each.role, "disabled" if each.disabled_at else "active", each.id)
                for each in page
            ]
            if cursor is None:
                break
    terminal.say(terminal.table(("E-MAIL", "ROLE", "STATE", "ID"), rows))
    return 0


async def disable(
    *, email: str, undo: bool, config: Path | None, overrides: Mapping[str, Any]
) -> int:
    """Disable a user, or let the user back in. Raises NotFound."""
    async with opened(load(config, overrides)) as store:
        user = await _find(store, email)
        await store.write(users.set_disabled, user.id, None if undo else _now())
    state = "may sign in again" if undo else "is signed out everywhere, within five seconds"
    terminal.say(f"{terminal.safe(email)} {state}.")
    return 0


async def password(*, email: str, config: Path | None, overrides: Mapping[str, Any]) -> int:
    """Set a user's password, which ends all sign-ins of that user. Raises NotFound."""
    async with opened(load(config, overrides)) as store:
        user = await _find(store, email)
        chosen, made_up = new_password(email)
        await store.write(users.set_password, user.id, await Passwords().hash(chosen), _now())
    terminal.say(f"{terminal.safe(email)} has a new password.")
    _say_made_up(chosen, made_up=made_up)
    return 0


async def _find(store: Store, email: str) -> User:
    found = await store.read(users.find_login, _normal(email))
    if found is None:
        raise NotFound(f"There is no user {email}. `zene user list` shows who there is.")
    return found[0]


def _say_made_up(password: str, *, made_up: bool) -> None:
    if made_up:
        terminal.say(f"Password: {password}")
        terminal.note("It is shown this once.")


def _normal(email: str) -> str:
    """As sign-in looks it up."""
    return email.strip().casefold()


def _now() -> int:
    return time.time_ns() // 1_000_000

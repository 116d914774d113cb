"""Users, on the data folder's own store: a running server sees a change within five seconds."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zene.cli import terminal
from zene.cli.installation import load, new_password, opened
from zene.domain.errors import InvalidInput, NotFound, SetupError
from zene.domain.ids import RANDOM_BYTES, make_id
from zene.domain.quotas import Period, Quota
from zene.domain.users import Role, User, email_address
from zene.gateway.passwords import Passwords
from zene.store import quotas, shortage, users
from zene.store.base import Store, Unit
from zene.store.usage import usage_of
from zene.wiring.worker import probe_sandboxes, users_refused

PAGE = 200
RESUMED_AT_ONCE = 50  # tasks; a running server queues what waits beyond that


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
                (
                    each.email,
                    each.role,
                    "disabled" if each.disabled_at else "active",
                    _allowance(each.quota) or "none",
                    str(each.max_active_tasks or "server's"),
                    each.id,
                )
                for each in page
            ]
            if cursor is None:
                break
    head = ("E-MAIL", "ROLE", "STATE", "QUOTA", "ACTIVE TASKS", "ID")
    terminal.say(terminal.table(head, rows))
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


async def quota(  # noqa: PLR0913 - what can be said
    *,
    email: str,
    tokens: int | None,
    period: Period,
    none: bool,
    max_active_tasks: int | None,
    config: Path | None,
    overrides: Mapping[str, Any],
) -> int:
    """Change how much a user may use, and say how much that is. Raises NotFound, InvalidInput."""
    if none and tokens is not None:
        raise InvalidInput("Either --tokens or --none.")
    async with opened(load(config, overrides)) as store:
        user = await _find(store, email)
        if max_active_tasks is not None:
            await store.write(users.set_max_active_tasks, user.id, max_active_tasks or None)
        if none or tokens is not None:
            chosen = None if tokens is None else Quota(tokens=tokens, period=period)
            await store.write(_allow, user.id, chosen, _now())
        found = await store.read(usage_of, user.id, _now())
        user = await store.read(users.get_user, user.id)
    account, limit = found.account, _allowance(found.quota)
    used = f"{account.used} used, {account.reserved} reserved, {f'of {limit}' if limit else 'no quota'}"
    most = user.max_active_tasks
    active = f"at most {most} tasks at once" if most else "as many tasks at once as the server lets"
    terminal.say(f"{terminal.safe(email)}: {used}; {active}.")
    return 0


def _allow(user_id: str, quota: Quota | None, now: int) -> Unit[None]:
    """Set it; what waited for tokens goes on at once, as far as one unit takes it."""
    yield from quotas.set_quota(user_id, quota, now)
    yield from shortage.resume(user_id, now=now, limit=RESUMED_AT_ONCE)


def _allowance(quota: Quota | None) -> str:
    if quota is None:
        return ""
    return (
        f"{quota.tokens} in all" if quota.period == "total" else f"{quota.tokens} a {quota.period}"
    )


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

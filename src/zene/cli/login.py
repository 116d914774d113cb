"""Signing in, once for all later commands."""

import getpass
import sys

from zene.cli import terminal
from zene.cli.server import keep, normal
from zene.client import AsyncClient
from zene.domain.errors import InvalidInput, NotFound


async def login(*, server: str, email: str | None) -> int:
    """Sign in and keep it. Raises Unauthorized for a wrong e-mail or password, NotFound where no Zene answers."""
    url = normal(server)
    with terminal.interruptible():
        who = email or _asked("E-mail: ")
        password = _password(who)
    if not password:
        raise InvalidInput("The password is empty.")
    async with AsyncClient(url) as client:
        try:
            tokens = await client.login(who, password)
        except NotFound as err:
            raise NotFound(f"No Zene answers at {url}; is that the whole address?") from err
    keep(url, who, tokens, as_current=True)
    terminal.say(f"Signed in to {terminal.safe(url)} as {terminal.safe(who)}.")
    return 0


def _asked(question: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidInput("Say who signs in: --email ADDRESS")
    return input(question).strip()


def _password(who: str) -> str:
    """Asked for, or the first line of stdin where it is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return getpass.getpass(f"Password of {who}: ")

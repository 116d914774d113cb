"""Sign-ins of this person: one file, readable by nobody else, for any number of servers.

Two programs may refresh at once: the server gives both the same successor for half a minute, and each
writes the file whole, so that a reader never sees half of it.
"""

import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from zene.domain.errors import SetupError


class SignIn(Struct, frozen=True, kw_only=True):
    """What a sign-in is continued with."""

    email: str
    access_token: str
    refresh_token: str


class Credentials(Struct, frozen=True, kw_only=True):
    """All of them by the server's URL; `current` is the one signed in to last."""

    current: str | None = None
    servers: dict[str, SignIn] = {}


def path() -> Path:
    """Where they are kept, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(base) / "zene" / "credentials.json"


def read() -> Credentials:
    """All sign-ins; none where there is no file. Raises SetupError for one that cannot be read."""
    try:
        return msgspec.json.decode(path().read_bytes(), type=Credentials)
    except FileNotFoundError:
        return Credentials()
    except (OSError, msgspec.MsgspecError) as err:
        raise SetupError(f"Cannot read {path()}: {err}. Remove it and sign in again.") from err


def keep(server: str, sign_in: SignIn, *, as_current: bool = False) -> None:
    """Write one sign-in beside the others. Raises SetupError."""
    known = read()
    _write(
        Credentials(
            current=server if as_current else known.current or server,
            servers=known.servers | {server: sign_in},
        )
    )


def _write(credentials: Credentials) -> None:
    target = path()
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it readable by its owner alone.
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".credentials-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(credentials)))
        Path(name).replace(target)
    except OSError as err:
        raise SetupError(f"Cannot write {target}: {err.strerror}.") from err

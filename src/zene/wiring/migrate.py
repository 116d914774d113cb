"""What makes an installation: a schema, a name that the store and the data folder share, a key, and somebody
who may sign in. `zene migrate` makes it, and so does `zene up`; gateways and workers only look at it.
"""

import secrets
import time

from msgspec import Struct

from zene.domain.errors import SetupError
from zene.domain.ids import RANDOM_BYTES, make_id
from zene.domain.users import email_address
from zene.settings import Settings
from zene.settings.folder import check_restored, make_key, mark, marker
from zene.store import credentials, installation
from zene.store.base import Store
from zene.wiring.gateway import check_key


class Made(Struct, frozen=True, kw_only=True):
    """An installation that is complete. `first_password` is what was made up for its first administrator,
    `administrator` that one's e-mail, where that was made just now.
    """

    id: str
    administrator: str | None
    first_password: str | None


async def make(settings: Settings, store: Store, *, make_up_password: bool) -> Made:
    """Make what is missing; twice, or two at once, is harmless. Where no password is set for the first
    administrator, one is made up or there is none yet. Raises SetupError.
    """
    check_restored(settings.data_dir)
    # Looked at before the store is, which is named before a folder is marked: two may make it at once.
    found = marker(settings.data_dir)
    await store.migrate()
    if found is not None and await store.read(installation.name) is None:
        raise SetupError(
            f"{settings.data_dir} belongs to installation {found}, and {settings.store_shown} has none: what "
            "runs there would take the folder's workspaces for nobody's. Correct ZENE_STORE; for a new "
            "installation name a new folder with ZENE_DATA_DIR or --data-dir."
        )
    name = await store.write(installation.named, secrets.token_hex(8), _now_ms())
    mark(settings.data_dir, name)
    if not await store.read(credentials.list_keys):  # another key would open none of them
        make_key(settings)
    await check_key(settings, store)
    email, password = await first_administrator(settings, store, make_up_password=make_up_password)
    return Made(id=name, administrator=email, first_password=password)


async def first_administrator(
    settings: Settings, store: Store, *, make_up_password: bool
) -> tuple[str | None, str | None]:
    """Who was added, if there was no user, and the password if it had to be made up."""
    from zene.gateway.passwords import Passwords  # noqa: PLC0415
    from zene.store import users  # noqa: PLC0415

    given = settings.admin_password
    if await store.read(users.count_users) or not (given or make_up_password):
        return None, None
    password = given.reveal() if given else secrets.token_urlsafe(15)
    hashed = await Passwords().hash(password)
    email = email_address(settings.admin_email)
    user_id = make_id("usr", _now_ms(), secrets.token_bytes(RANDOM_BYTES))
    if await store.write(users.create_first, user_id, email, hashed, _now_ms()) is None:
        return None, None  # somebody else was faster
    return email, None if given else password


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

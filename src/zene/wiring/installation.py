"""What a gateway or worker of its own looks for before it starts: an installation that somebody has made."""

from zene.domain.errors import SetupError
from zene.store import installation
from zene.store.base import Store


async def found(store: Store) -> str:
    """The id of an installation that is there, with this release's schema. Raises SetupError."""
    await store.check()
    name = await store.read(installation.name)
    if name is None:
        raise SetupError("The store belongs to no installation yet. Run `zene migrate` first.")
    return name

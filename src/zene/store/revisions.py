"""Whether a schema is this release's: gateways and workers refuse any other."""

from zene.domain.errors import SetupError
from zene.store.schema import REVISION


def check_revision(found: str | None) -> None:
    """Raises SetupError unless it is this release's; None is a database without a schema."""
    if found == REVISION:
        return
    if found is None:
        raise SetupError("The database has no schema yet. Make it with: zene migrate")
    from zene.store import migrations  # noqa: PLC0415 - 0.2 s and 12 MB that few starts need

    migrations.check_known(found)
    raise SetupError(
        f"The database has schema {found}, and this release needs {REVISION}."
        " Bring it there with: zene migrate"
    )

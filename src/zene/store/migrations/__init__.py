"""Changes of the schema from release to release, run by Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from zene.domain.errors import SetupError


def upgrade(url: str, found: str | None) -> None:
    """Bring the schema at `url` from revision `found` to the newest. Raises SetupError for an unknown one."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SetupError(
            f"The database has schema {found}, which this release does not know. "
            "Start the release that made it, or a newer one."
        )
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

"""Running the migrations from code; there is no alembic.ini."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text

from federation.errors import ChaotianError


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for this package, on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision, in one transaction.

    Raises:
        ChaotianError: VERSION where the database has a revision that this version does not know.
    """
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    with engine.connect() as connection, connection.begin():
        current = None
        if inspect(connection).has_table("alembic_version"):
            current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if current == head:
            return
        try:
            command.upgrade(configuration(connection), "head")
        except (CommandError, ResolutionError):
            raise ChaotianError(
                "VERSION",
                f"the database has schema {current}, which this version does not know",
                hint="Use the version of Chaotian that wrote it, or a newer one.",
            ) from None

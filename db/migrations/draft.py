"""Drafts a migration after a change of `schema.py`, to be read, mended and named as its HEAD:

python -m linearch.db.migrations.draft "what changed"
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command

from ..database import Database
from ..location import parse_location
from ..migrate import alembic_config, ensure_schema
from ..schema import HEAD


def draft_migration(message: str) -> None:
    """Write a file below `versions` with what the schema has and the newest migration lacks."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(parse_location(Path(folder) / "draft.db"))
        ensure_schema(database, create=True)
        with database.write() as connection:
            config = alembic_config(connection)
            command.revision(config, message, autogenerate=True, rev_id=f"{int(HEAD) + 1:04d}")
        database.close()


if __name__ == "__main__":
    draft_migration(" ".join(sys.argv[1:]))

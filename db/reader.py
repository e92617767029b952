"""What the groups of queries share."""

from __future__ import annotations

from .database import Database


class Reader:
    """Holds the database for one group of queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

"""Alembic's entry: runs the migrations on the connection that `db/migrate.py` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator


def render_plain(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """Drafts of migrations name plain types: what a column type does in Python is not stored."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    transactional_ddl=True,
    render_as_batch=True,  # SQLite alters a table by copying it
    render_item=render_plain,
)
with context.begin_transaction():
    context.run_migrations()

"""Why a trial was run: what climbed by its score, what by lot, what was measured once more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("purpose", sa.Text()))


def downgrade() -> None:
    op.drop_column("trials", "purpose")

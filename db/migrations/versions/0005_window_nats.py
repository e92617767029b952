"""What each held-out window cost, so that scores can be compared window by window."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("window_nats", sa.LargeBinary()))


def downgrade() -> None:
    op.drop_column("trials", "window_nats")

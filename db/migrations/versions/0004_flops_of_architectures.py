"""How many operations a token costs an architecture in training."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("architectures", sa.Column("flops_per_token", sa.Double()))


def downgrade() -> None:
    op.drop_column("architectures", "flops_per_token")

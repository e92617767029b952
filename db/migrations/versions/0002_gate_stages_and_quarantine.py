"""Gates by stage, verdicts that can be absent, levels of containment, alarms and quarantine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PRIMARY_KEY = "pk_gate_results"


def upgrade() -> None:
    # Every gate that was stored so far ran on the processor, before any training.
    stage = sa.Column("stage", sa.Text(), nullable=False, server_default="cpu")
    with op.batch_alter_table("gate_results") as gates:
        gates.add_column(stage)
        gates.alter_column("passed", existing_type=sa.Boolean(), nullable=True)
        gates.drop_constraint(_PRIMARY_KEY, type_="primary")
        gates.create_primary_key(_PRIMARY_KEY, ["architecture_id", "gate", "stage"])
    with op.batch_alter_table("gate_results") as gates:
        gates.alter_column("stage", existing_type=sa.Text(), server_default=None)
    op.add_column("architectures", sa.Column("released_at", sa.DateTime(timezone=True)))
    op.add_column("trials", sa.Column("alarm", sa.Text()))
    op.add_column("trials", sa.Column("sandbox", sa.Text()))


def downgrade() -> None:
    op.drop_column("trials", "sandbox")
    op.drop_column("trials", "alarm")
    op.drop_column("architectures", "released_at")
    # The older schema has no place for these.
    op.execute("DELETE FROM gate_results WHERE stage <> 'cpu' OR passed IS NULL")
    with op.batch_alter_table("gate_results") as gates:
        gates.drop_constraint(_PRIMARY_KEY, type_="primary")
        gates.create_primary_key(_PRIMARY_KEY, ["architecture_id", "gate"])
        gates.alter_column("passed", existing_type=sa.Boolean(), nullable=False)
        gates.drop_column("stage")

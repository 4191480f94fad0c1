"""predictions and annotations: the answer of any task

Rows from before keep their meaning: their task is `anomaly`, their answer is in the columns that they had.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_FLOAT = sa.Float(precision=53)


def upgrade() -> None:
    with op.batch_alter_table("predictions") as table:
        table.add_column(sa.Column("task", sa.String(length=32), nullable=False, server_default="anomaly"))
        table.add_column(sa.Column("answer", sa.JSON(), nullable=True))
        table.alter_column("score", existing_type=_FLOAT, nullable=True)
        table.alter_column("threshold", existing_type=_FLOAT, nullable=True)
        table.alter_column("is_anomaly", existing_type=sa.Boolean(), nullable=True)
    with op.batch_alter_table("annotations") as table:
        table.alter_column("label", existing_type=sa.String(length=16), type_=sa.Text(), existing_nullable=False)
        table.add_column(sa.Column("content", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("annotations") as table:
        table.drop_column("content")
        table.alter_column("label", existing_type=sa.Text(), type_=sa.String(length=16), existing_nullable=False)
    op.execute("DELETE FROM predictions WHERE score IS NULL OR threshold IS NULL OR is_anomaly IS NULL")
    with op.batch_alter_table("predictions") as table:
        table.alter_column("is_anomaly", existing_type=sa.Boolean(), nullable=False)
        table.alter_column("threshold", existing_type=_FLOAT, nullable=False)
        table.alter_column("score", existing_type=_FLOAT, nullable=False)
        table.drop_column("answer")
        table.drop_column("task")

"""requests know the sample that came with them and when their run began, trainings their progress, predictions all
three verdicts"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("requests", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("sample", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("trainings", schema=None) as batch_op:
        batch_op.add_column(sa.Column("progress", sa.JSON(), nullable=True))
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("verdict", sa.String(length=16), nullable=True))
    # Of what is under way already nobody knows whether its dataset is fixed: nothing is to join it.
    op.execute("UPDATE requests SET started_at = claimed_at WHERE state = 'claimed'")


def downgrade() -> None:
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.drop_column("verdict")
    with op.batch_alter_table("trainings", schema=None) as batch_op:
        batch_op.drop_column("progress")
    with op.batch_alter_table("requests", schema=None) as batch_op:
        batch_op.drop_column("started_at")
        batch_op.drop_column("sample")
        batch_op.drop_column("sha256")

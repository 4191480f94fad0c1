"""samples and dataset versions: the bit depth of samples

Null in rows of before: their images are scaled as they were, each by its own samples.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("samples") as table:
        table.add_column(sa.Column("sample_bits", sa.Integer(), nullable=True))
        table.add_column(sa.Column("sample_peak", sa.Float(precision=53), nullable=True))
        table.add_column(sa.Column("described_bits", sa.Integer(), nullable=True))
    with op.batch_alter_table("dataset_versions") as table:
        table.add_column(sa.Column("bits", sa.Integer(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("dataset_versions") as table:
        table.drop_column("bits")
    with op.batch_alter_table("samples") as table:
        table.drop_column("described_bits")
        table.drop_column("sample_peak")
        table.drop_column("sample_bits")

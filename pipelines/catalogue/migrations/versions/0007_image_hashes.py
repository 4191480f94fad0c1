"""perceptual hashes of images, by which copies of one photograph are found"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BANDS = tuple(f"band_{number}" for number in range(5))


def upgrade() -> None:
    op.create_table(
        "image_hashes",
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(16), nullable=False),
        *(sa.Column(band, sa.Integer(), nullable=False) for band in BANDS),
        sa.PrimaryKeyConstraint("project", "sha256", name="pk_image_hashes"),
    )
    for band in BANDS:
        op.create_index(f"ix_image_hashes_{band}", "image_hashes", ["project", band])


def downgrade() -> None:
    op.drop_table("image_hashes")

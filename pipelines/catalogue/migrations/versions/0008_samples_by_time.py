"""samples: an index by time of ingest, to count those that came in since a version serves"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_samples_project_ingested_at", "samples", ["project", "ingested_at"])


def downgrade() -> None:
    op.drop_index("ix_samples_project_ingested_at", "samples")

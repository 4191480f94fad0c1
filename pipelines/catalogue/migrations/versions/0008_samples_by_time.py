"""indices: samples by time of ingest, annotations by origin

They find the samples that came in since a version serves, and the proposed annotations.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_samples_project_ingested_at", "samples", ["project", "ingested_at"])
    op.create_index("ix_annotations_project_origin", "annotations", ["project", "origin"])


def downgrade() -> None:
    op.drop_index("ix_annotations_project_origin", "annotations")
    op.drop_index("ix_samples_project_ingested_at", "samples")

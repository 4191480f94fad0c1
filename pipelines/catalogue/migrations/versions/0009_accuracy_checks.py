"""accuracy_checks: whether the champion of a classifier keeps the project's minimum of accuracy"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accuracy_checks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dag_run_id", sa.Text, nullable=False),
        sa.Column("model_version", sa.String(16), nullable=False),
        sa.Column("version_id", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("changed", sa.Boolean, nullable=False),
        sa.Column("results", sa.JSON, nullable=False),
        sa.Column("mailed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_accuracy_checks"),
        sa.UniqueConstraint("project", "dag_run_id", name="uq_accuracy_checks_project_dag_run_id"),
    )


def downgrade() -> None:
    op.drop_table("accuracy_checks")

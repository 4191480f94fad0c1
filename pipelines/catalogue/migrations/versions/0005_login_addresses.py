"""login_addresses: from where accounts have logged in"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "login_addresses",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("network", sa.String(length=64), nullable=False),
        sa.Column("password_filter", sa.String(length=32), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "network", name=op.f("pk_login_addresses")),
    )
    op.create_index("ix_login_addresses_used_at", "login_addresses", ["used_at"])


def downgrade() -> None:
    op.drop_index("ix_login_addresses_used_at", "login_addresses")
    op.drop_table("login_addresses")

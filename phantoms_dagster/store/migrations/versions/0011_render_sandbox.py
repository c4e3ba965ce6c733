"""Renders of the sandbox are not those of the real service. Null: from before this was noted, so whoever goes on takes it for theirs."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.renders ADD COLUMN sandbox boolean")


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.renders DROP COLUMN sandbox")

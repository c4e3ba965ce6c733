"""Whether a render is the sandbox's or the real service's. Null: an older row, which any attempt may continue as its own."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.renders ADD COLUMN sandbox boolean")


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.renders DROP COLUMN sandbox")

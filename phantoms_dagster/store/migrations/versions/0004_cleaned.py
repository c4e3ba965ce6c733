"""When the files of a stage were cleaned up after its video was retired, so that no night does it again."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.stages ADD COLUMN cleaned_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.stages DROP COLUMN cleaned_at")

"""What an attempt waited for pools and breakers, and what a stage that is put off waits for."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.attempts ADD COLUMN paced jsonb")
    op.execute("ALTER TABLE phantoms.stages ADD COLUMN paced jsonb, ADD COLUMN waits_for text, ADD COLUMN waits_since timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.stages DROP COLUMN waits_since, DROP COLUMN waits_for, DROP COLUMN paced")
    op.execute("ALTER TABLE phantoms.attempts DROP COLUMN paced")

"""When a stage began to fail and how often it waited without success; the attempts and the time that a dead letter sums up."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.stages ADD COLUMN failing_since timestamptz, ADD COLUMN waits integer NOT NULL DEFAULT 0")
    op.execute(
        "ALTER TABLE phantoms.dead_letters ADD COLUMN tries integer, ADD COLUMN counted integer, ADD COLUMN failing_since timestamptz"
    )
    op.execute("CREATE INDEX posts_to_open ON phantoms.posts (platform, account) WHERE state = 'intent'")


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.posts_to_open")
    op.execute("ALTER TABLE phantoms.dead_letters DROP COLUMN failing_since, DROP COLUMN counted, DROP COLUMN tries")
    op.execute("ALTER TABLE phantoms.stages DROP COLUMN waits, DROP COLUMN failing_since")

"""The place of each video in Dagster's order of partitions: the planner cuts ranges without reading them all."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.videos ADD COLUMN place bigint")
    # The intake has added them in this order; it looks again, and puts right what is not so, when it next starts.
    op.execute("UPDATE phantoms.videos SET place = id WHERE registered_at IS NOT NULL")
    op.execute("CREATE INDEX videos_in_order ON phantoms.videos (place) WHERE retired_at IS NULL AND place IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.videos_in_order")
    op.execute("ALTER TABLE phantoms.videos DROP COLUMN place")

"""The calendar: videos are found by the time of their brief."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX videos_publish_at ON phantoms.videos (publish_at) WHERE publish_at IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.videos_publish_at")

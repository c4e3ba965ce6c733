"""Indexes for the desk's page of results: the videos of a period, of all channels and of one."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX video_performance_by_time ON phantoms.video_performance (first_published_at)")
    op.execute("CREATE INDEX video_performance_of_channel ON phantoms.video_performance (channel, first_published_at)")


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.video_performance_of_channel")
    op.execute("DROP INDEX phantoms.video_performance_by_time")

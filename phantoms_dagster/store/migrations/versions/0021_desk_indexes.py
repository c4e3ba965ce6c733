"""Indexes for what pages read of one video, and for results in every order; and the sums of the page of results."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

INDEXES = {
    "posts_of_video": "phantoms.posts (video_id, id)",
    "posts_of_caption": "phantoms.posts (caption_sha256, account)",
    "videos_of_channel_and_priority": "phantoms.videos (channel, priority, id)",
    "stages_done": "phantoms.stages (updated_at) WHERE state = 'done'",
    "approvals_decided": "phantoms.approvals (decided_at)",
    **{
        f"video_performance_by_{column}": f"phantoms.video_performance ({column} DESC NULLS LAST, video_key)"
        for column in ("views", "likes", "comments", "shares", "engagement_rate", "cost")
    },
}


def upgrade() -> None:
    for name, what in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {what}")
    op.execute(
        """
        CREATE TABLE phantoms.performance_sums (
            days integer NOT NULL,
            channel text NOT NULL,
            hour integer,
            hook text,
            videos bigint NOT NULL,
            posts bigint NOT NULL,
            views bigint NOT NULL,
            reactions bigint NOT NULL,
            cost numeric NOT NULL,
            since timestamptz NOT NULL,
            computed_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX performance_sums_of_period ON phantoms.performance_sums (days, channel)")


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.performance_sums")
    for name in INDEXES:
        op.execute(f"DROP INDEX phantoms.{name}")

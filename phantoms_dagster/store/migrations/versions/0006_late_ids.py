"""Posts whose public id comes after they were published, and when they are asked for next."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.late_ids (
            post_id bigint PRIMARY KEY REFERENCES phantoms.posts (id) ON DELETE CASCADE,
            ask_at timestamptz,
            given_up boolean NOT NULL DEFAULT false,
            asked integer NOT NULL DEFAULT 0
        )
        """
    )
    op.execute(
        r"""
        CREATE INDEX posts_without_public_id ON phantoms.posts (published_at)
        WHERE platform = 'tiktok' AND state IN ('published', 'confirmed') AND remote_id !~ '^[0-9]+$'
        """
    )


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.posts_without_public_id")
    op.execute("DROP TABLE phantoms.late_ids")

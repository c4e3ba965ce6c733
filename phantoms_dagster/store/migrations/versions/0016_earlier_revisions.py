"""Earlier revisions: the video and the script that a new revision replaced."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.earlier_revisions (
            video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            revision integer NOT NULL,
            script jsonb NOT NULL,
            rendered jsonb NOT NULL,
            replaced_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (video_id, revision)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.earlier_revisions")

"""Two reviewers: who added a brief, first approvals, and the person behind a decision when that is not the one it names."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.videos ADD COLUMN added_by text")
    op.execute("ALTER TABLE phantoms.pending_decisions ADD COLUMN person text")
    op.execute("ALTER TABLE phantoms.approvals ADD COLUMN first_reviewer text")
    op.execute(
        """
        CREATE TABLE phantoms.first_approvals (
            video_id bigint PRIMARY KEY REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            person text NOT NULL,
            reviewer text NOT NULL,
            note text NOT NULL DEFAULT '',
            via text NOT NULL,
            content_sha256 text NOT NULL,
            given_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.first_approvals")
    op.execute("ALTER TABLE phantoms.approvals DROP COLUMN first_reviewer")
    op.execute("ALTER TABLE phantoms.pending_decisions DROP COLUMN person")
    op.execute("ALTER TABLE phantoms.videos DROP COLUMN added_by")

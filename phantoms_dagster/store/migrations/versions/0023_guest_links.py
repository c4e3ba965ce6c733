"""Guest links: one video, one decision, by somebody who has no account."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.guest_links (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            secret_sha256 text NOT NULL CONSTRAINT guest_links_secret UNIQUE,
            guest text NOT NULL,
            content_sha256 text NOT NULL,
            made_by text NOT NULL,
            made_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL,
            revoked_by text,
            revoked_at timestamptz,
            decision_id bigint REFERENCES phantoms.pending_decisions (id) ON DELETE SET NULL,
            used_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX guest_links_of_video ON phantoms.guest_links (video_id, id)")
    op.execute("CREATE INDEX guest_links_of_decision ON phantoms.guest_links (decision_id)")


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.guest_links")

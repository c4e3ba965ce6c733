"""Checks before posts: of each post 24 hours and 1 hour before it is due, and of each account."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.preflight_posts (
            video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            platform text NOT NULL,
            phase text NOT NULL CONSTRAINT preflight_posts_phase CHECK (phase IN ('day', 'hour', 'asked')),
            account text,
            due_at timestamptz NOT NULL,
            checked_at timestamptz NOT NULL DEFAULT now(),
            verdict text NOT NULL CONSTRAINT preflight_posts_verdict CHECK (verdict IN ('ok', 'note', 'unchecked', 'wrong')),
            checks jsonb NOT NULL,
            PRIMARY KEY (video_id, platform, phase)
        )
        """
    )
    op.execute("CREATE INDEX preflight_posts_due ON phantoms.preflight_posts (due_at)")
    op.execute(
        """
        CREATE TABLE phantoms.preflight_accounts (
            platform text NOT NULL,
            account text NOT NULL,
            checked_at timestamptz NOT NULL DEFAULT now(),
            verdict text NOT NULL CONSTRAINT preflight_accounts_verdict CHECK (verdict IN ('ok', 'note', 'unchecked', 'wrong')),
            wrong_since timestamptz,
            checks jsonb NOT NULL,
            PRIMARY KEY (platform, account)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.preflight_accounts")
    op.execute("DROP TABLE phantoms.preflight_posts")

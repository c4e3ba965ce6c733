"""Events that platforms and providers send to the desk, each once."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.provider_events (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            provider text NOT NULL,
            digest text NOT NULL,
            kind text NOT NULL,
            handle jsonb NOT NULL DEFAULT '{}'::jsonb,
            subject text,
            attempt_id text,
            remote_id text,
            received_at timestamptz NOT NULL DEFAULT now(),
            followed_at timestamptz,
            woken integer,
            CONSTRAINT provider_events_once UNIQUE (provider, digest)
        )
        """
    )
    op.execute("CREATE INDEX provider_events_pending ON phantoms.provider_events (id) WHERE followed_at IS NULL")
    op.execute("CREATE INDEX provider_events_oldest ON phantoms.provider_events (received_at)")
    op.execute(
        """
        CREATE INDEX posts_handles ON phantoms.posts USING gin (handle jsonb_path_ops)
        WHERE state IN ('published', 'confirmed')
        """
    )
    op.execute(
        "CREATE INDEX provider_events_of_attempt ON phantoms.provider_events (provider, attempt_id) WHERE attempt_id IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.posts_handles")
    op.execute("DROP TABLE phantoms.provider_events")

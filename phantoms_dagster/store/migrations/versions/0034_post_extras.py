"""What is added to posts after their publication, such as caption tracks."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.posts ADD COLUMN extras text[] NOT NULL DEFAULT '{}'")
    op.execute("CREATE INDEX posts_with_extras ON phantoms.posts (published_at) WHERE extras <> '{}'::text[]")
    op.execute(
        """
        CREATE TABLE phantoms.post_extras (
            post_id bigint NOT NULL REFERENCES phantoms.posts (id) ON DELETE CASCADE,
            name text NOT NULL,
            state text NOT NULL CONSTRAINT post_extras_state CHECK (state IN ('waiting', 'added', 'refused')),
            tries integer NOT NULL DEFAULT 0,
            due_at timestamptz,
            detail text NOT NULL DEFAULT '',
            updated_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (post_id, name)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.post_extras")
    op.execute("DROP INDEX phantoms.posts_with_extras")
    op.execute("ALTER TABLE phantoms.posts DROP COLUMN extras")

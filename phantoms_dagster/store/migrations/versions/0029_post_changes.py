"""What happened to posts after they were published: taken down by us, or found gone, private or blocked at their platform."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.post_changes (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            post_id bigint NOT NULL REFERENCES phantoms.posts (id) ON DELETE CASCADE,
            at timestamptz NOT NULL DEFAULT now(),
            state text NOT NULL CONSTRAINT post_changes_state
                CHECK (state IN ('public', 'private', 'blocked', 'gone', 'taken_down')),
            evidence text NOT NULL,
            who text
        )
        """
    )
    op.execute("CREATE INDEX post_changes_of_post ON phantoms.post_changes (post_id, id)")
    op.execute("CREATE INDEX post_changes_by_time ON phantoms.post_changes (at)")


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.post_changes")

"""The board: indexes for its search and for a video's page, and bulk actions."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE phantoms.videos ADD COLUMN words tsvector NOT NULL
            GENERATED ALWAYS AS (to_tsvector('simple', title || ' ' || replace(key, '-', ' '))) STORED
        """
    )
    op.execute("CREATE INDEX videos_words ON phantoms.videos USING gin (words)")
    op.execute("CREATE INDEX videos_of_channel ON phantoms.videos (channel, id)")
    op.execute("CREATE INDEX videos_of_priority ON phantoms.videos (priority, id)")
    op.execute("CREATE INDEX videos_added ON phantoms.videos (created_at)")
    op.execute("CREATE INDEX videos_retired ON phantoms.videos (id) WHERE retired_at IS NOT NULL")
    op.execute("CREATE INDEX dead_letters_of_video ON phantoms.dead_letters (video_id, id)")
    op.execute(
        """
        CREATE TABLE phantoms.bulk_actions (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            action text NOT NULL,
            arguments jsonb NOT NULL DEFAULT '{}'::jsonb,
            chosen text NOT NULL DEFAULT '',
            who text NOT NULL,
            via text NOT NULL,
            address text NOT NULL DEFAULT '',
            state text NOT NULL DEFAULT 'running'
                CONSTRAINT bulk_actions_state CHECK (state IN ('canary', 'running', 'stopped', 'ended')),
            note text NOT NULL DEFAULT '',
            made_at timestamptz NOT NULL DEFAULT now(),
            ended_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX bulk_actions_open ON phantoms.bulk_actions (id) WHERE state IN ('canary', 'running')")
    op.execute(
        """
        CREATE TABLE phantoms.bulk_items (
            bulk_id bigint NOT NULL REFERENCES phantoms.bulk_actions (id) ON DELETE CASCADE,
            n integer NOT NULL,
            key text NOT NULL,
            letter_id bigint,
            state text NOT NULL DEFAULT 'pending'
                CONSTRAINT bulk_items_state CHECK (state IN ('pending', 'done', 'failed', 'skipped')),
            outcome text NOT NULL DEFAULT '',
            ended_at timestamptz,
            PRIMARY KEY (bulk_id, n)
        )
        """
    )
    op.execute("CREATE INDEX bulk_items_left ON phantoms.bulk_items (bulk_id, n) WHERE state = 'pending'")
    op.execute("CREATE INDEX bulk_items_by_state ON phantoms.bulk_items (bulk_id, state, n)")


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.bulk_items")
    op.execute("DROP TABLE phantoms.bulk_actions")
    op.execute("DROP INDEX phantoms.dead_letters_of_video")
    for index in ("videos_retired", "videos_added", "videos_of_priority", "videos_of_channel"):
        op.execute(f"DROP INDEX phantoms.{index}")
    op.execute("ALTER TABLE phantoms.videos DROP COLUMN words")

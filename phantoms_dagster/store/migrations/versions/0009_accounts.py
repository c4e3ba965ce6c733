"""What was approved word by word, posts that are bound to their account, and who a token belongs to."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Of several rows of one post the furthest is the post; the others are kept for people to look at.
_RANK = """array_position(ARRAY['confirmed', 'published', 'unknown', 'committing', 'uploading', 'opened', 'failed', 'intent'],
    p.state), p.id"""


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.approvals ADD COLUMN words jsonb")
    op.execute("ALTER TABLE phantoms.posts ADD COLUMN duplicate boolean NOT NULL DEFAULT false")
    for same in ("p.video_id, p.platform, p.sandbox", "p.platform, p.sandbox, p.remote_id"):
        op.execute(
            f"""
            UPDATE phantoms.posts SET duplicate = true FROM (
                SELECT p.id, row_number() OVER (PARTITION BY {same} ORDER BY {_RANK}) AS place
                FROM phantoms.posts p WHERE NOT p.duplicate {"AND p.remote_id IS NOT NULL AND NOT p.sandbox" if "remote_id" in same else ""}
            ) ranked WHERE ranked.id = posts.id AND ranked.place > 1
            """
        )
    op.execute("ALTER TABLE phantoms.posts DROP CONSTRAINT posts_once")
    op.execute("CREATE UNIQUE INDEX posts_bound ON phantoms.posts (video_id, platform, sandbox) WHERE NOT duplicate")
    op.execute(
        "CREATE UNIQUE INDEX posts_remote ON phantoms.posts (platform, sandbox, remote_id)"
        " WHERE remote_id IS NOT NULL AND NOT duplicate AND NOT sandbox"
    )
    op.execute(
        "ALTER TABLE phantoms.accounts ADD COLUMN label text, ADD COLUMN token_ref text, ADD COLUMN token_sha256 text, ADD COLUMN reason text,"
        " ADD COLUMN state_since timestamptz, ADD COLUMN asked_at timestamptz"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE phantoms.accounts DROP COLUMN label, DROP COLUMN token_ref, DROP COLUMN token_sha256, DROP COLUMN reason, DROP COLUMN state_since,"
        " DROP COLUMN asked_at"
    )
    op.execute("DROP INDEX phantoms.posts_remote")
    op.execute("DROP INDEX phantoms.posts_bound")
    # What was tried out in the sandbox gives way to the real post of the same name.
    op.execute(
        "DELETE FROM phantoms.posts p USING phantoms.posts r WHERE p.sandbox AND NOT r.sandbox AND r.video_id = p.video_id"
        " AND r.platform = p.platform AND r.account = p.account"
    )
    op.execute("ALTER TABLE phantoms.posts ADD CONSTRAINT posts_once UNIQUE (video_id, platform, account)")
    op.execute("ALTER TABLE phantoms.posts DROP COLUMN duplicate")
    op.execute("ALTER TABLE phantoms.approvals DROP COLUMN words")

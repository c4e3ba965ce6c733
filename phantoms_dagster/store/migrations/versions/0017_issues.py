"""The cause of a dead letter, and what people said about causes."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# What differs between letters of one cause is left out: addresses, what is quoted, words with a digit, keys of videos
# (three or more words with hyphens), hexadecimal and other long words. No name of a character class has a colon here:
# SQLAlchemy would take it for a parameter.
DIFFERS = r"""https?://\S+|"[^"]*"|“[^”]*”|`[^`]*`|(?<!\w)''[^'']*''(?!\w)|\S*\d\S*|\w+(?:-\w+){2,}|\m[a-f]{8,}\M|\m[a-z]{24,}\M"""


def upgrade() -> None:
    op.execute(
        rf"""
        CREATE FUNCTION phantoms.cause_of(provider text, stage text, error_class text, code text, message text) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
            SELECT "left"(md5(concat_ws('|', COALESCE(provider, ''), stage, error_class, COALESCE(code, ''),
                "left"(regexp_replace(regexp_replace("left"(lower(message), 2000), '{DIFFERS}', '#', 'g'),
                    '#(?:[\s,;.-]*#)+', '#', 'g'), 300))), 16)
        $$
        """
    )
    op.execute(
        """
        ALTER TABLE phantoms.dead_letters ADD COLUMN cause text NOT NULL
            GENERATED ALWAYS AS (phantoms.cause_of(provider, stage, error_class, code, message)) STORED
        """
    )
    op.execute("CREATE INDEX dead_letters_of_cause ON phantoms.dead_letters (cause, id)")
    op.execute("CREATE INDEX dead_letters_of_cause_by_time ON phantoms.dead_letters (cause, created_at)")
    op.execute("CREATE INDEX dead_letters_open_of_cause ON phantoms.dead_letters (cause, id) WHERE state = 'open'")
    op.execute(
        """
        CREATE TABLE phantoms.issues (
            cause text PRIMARY KEY,
            state text NOT NULL CONSTRAINT issues_state CHECK (state IN ('open', 'acknowledged', 'resolved')),
            seen bigint NOT NULL,
            counted bigint NOT NULL,
            said_at timestamptz NOT NULL DEFAULT now(),
            said_by text NOT NULL,
            note text NOT NULL DEFAULT ''
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.issues")
    op.execute("ALTER TABLE phantoms.dead_letters DROP COLUMN cause")
    op.execute("DROP FUNCTION phantoms.cause_of")

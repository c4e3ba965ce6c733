"""Calendar feeds: the hashes of the secret addresses at which the calendar can be read."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.calendar_feeds (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            secret_sha256 text NOT NULL CONSTRAINT calendar_feeds_secret UNIQUE,
            channel text NOT NULL DEFAULT '',
            made_by text NOT NULL,
            made_at timestamptz NOT NULL DEFAULT now(),
            revoked_by text,
            revoked_at timestamptz
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.calendar_feeds")

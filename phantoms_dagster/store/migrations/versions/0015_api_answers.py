"""The API: answers that are remembered for a day, so that a request which is sent twice is carried out once."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.api_answers (
            who text NOT NULL,
            key text NOT NULL,
            body_sha256 text NOT NULL,
            status smallint,
            answer jsonb,
            made_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (who, key)
        )
        """
    )
    op.execute("CREATE INDEX api_answers_oldest ON phantoms.api_answers (made_at)")


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.api_answers")

"""What only Dagster knows and a person has to hear of."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.notices (
            id TEXT PRIMARY KEY,
            what TEXT NOT NULL,
            next_step TEXT NOT NULL,
            since TIMESTAMP WITH TIME ZONE NOT NULL
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.notices")

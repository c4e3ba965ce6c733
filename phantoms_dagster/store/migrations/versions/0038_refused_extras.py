"""The list of what waits for a person looks for extras that were refused lately."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX post_extras_refused ON phantoms.post_extras (updated_at) WHERE state = 'refused'")


def downgrade() -> None:
    op.execute("DROP INDEX phantoms.post_extras_refused")

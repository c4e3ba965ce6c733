"""What marks the form that made a bulk action, so that the form sent again makes no second one."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.bulk_actions ADD COLUMN once text CONSTRAINT bulk_actions_once_key UNIQUE")


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.bulk_actions DROP COLUMN once")

"""Why the results of a post are not compared with those of other posts, as of Instagram's trial reels."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.posts ADD COLUMN set_apart text")


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.posts DROP COLUMN set_apart")

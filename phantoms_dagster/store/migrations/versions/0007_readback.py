"""When each post is to be read back again, and what came of each account's last turn."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.post_reads (
            post_id BIGINT PRIMARY KEY REFERENCES phantoms.posts (id) ON DELETE CASCADE,
            due_at TIMESTAMP WITH TIME ZONE NOT NULL,
            read_at TIMESTAMP WITH TIME ZONE,
            gone_at TIMESTAMP WITH TIME ZONE,
            failures INTEGER DEFAULT 0 NOT NULL,
            problem TEXT
        )
        """
    )
    op.execute(
        """
        CREATE TABLE phantoms.account_reads (
            platform TEXT NOT NULL,
            account TEXT NOT NULL,
            read_at TIMESTAMP WITH TIME ZONE,
            failing_since TIMESTAMP WITH TIME ZONE,
            problem TEXT,
            unsupported TEXT[] DEFAULT '{}' NOT NULL,
            unsupported_at TIMESTAMP WITH TIME ZONE,
            PRIMARY KEY (platform, account)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.account_reads")
    op.execute("DROP TABLE phantoms.post_reads")

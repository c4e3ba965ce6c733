"""Who owns an account at a gateway is a fact of its own, beside its owner at the platform."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

# The only gateway before this version. Its owners have such subjects.
_OF_GATEWAY = "a.subject LIKE 'uploadpost:%'"


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.accounts ADD COLUMN gateway text NOT NULL DEFAULT ''")
    op.execute(
        "ALTER TABLE phantoms.accounts DROP CONSTRAINT accounts_once, ADD CONSTRAINT accounts_once UNIQUE (platform, name, gateway)"
    )
    op.execute(
        f"""
        INSERT INTO phantoms.accounts (platform, name, gateway, subject, label, token_sha256, state, reason, state_since, asked_at)
        SELECT platform, name, 'uploadpost', subject, label, token_sha256, state, reason, state_since, asked_at
        FROM phantoms.accounts a WHERE {_OF_GATEWAY}
        """
    )
    # The other accounts here were stopped because their two owners differ, which is no mistake any more.
    op.execute(
        f"""
        UPDATE phantoms.accounts a SET subject = CASE WHEN {_OF_GATEWAY} THEN NULL ELSE subject END,
            label = CASE WHEN {_OF_GATEWAY} THEN NULL ELSE label END, token_sha256 = NULL, state = 'active', reason = NULL,
            state_since = NULL, asked_at = NULL
        WHERE gateway = '' AND ({_OF_GATEWAY} OR state = 'mismatch' AND reason LIKE '%(uploadpost:%')
        """
    )


def downgrade() -> None:
    op.execute("DELETE FROM phantoms.accounts WHERE gateway <> ''")
    op.execute("ALTER TABLE phantoms.accounts DROP CONSTRAINT accounts_once, DROP COLUMN gateway")
    op.execute("ALTER TABLE phantoms.accounts ADD CONSTRAINT accounts_once UNIQUE (platform, name)")

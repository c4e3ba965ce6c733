"""People who log in by an OpenID Connect provider: users without a password, and log-ins that were used."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.users ALTER COLUMN password_hash DROP NOT NULL")
    op.execute("ALTER TABLE phantoms.users ADD COLUMN issuer text, ADD COLUMN subject text")
    op.execute("ALTER TABLE phantoms.users ADD CONSTRAINT users_identity UNIQUE (issuer, subject)")
    op.execute(
        """
        ALTER TABLE phantoms.users ADD CONSTRAINT users_one_way
        CHECK ((password_hash IS NULL) = (subject IS NOT NULL) AND (issuer IS NULL) = (subject IS NULL))
        """
    )
    op.execute(
        """
        CREATE TABLE phantoms.oidc_states (
            state_sha256 text PRIMARY KEY,
            expires_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX oidc_states_ended ON phantoms.oidc_states (expires_at)")


def downgrade() -> None:
    op.execute("DROP TABLE phantoms.oidc_states")
    op.execute("DELETE FROM phantoms.users WHERE password_hash IS NULL")
    op.execute("ALTER TABLE phantoms.users DROP CONSTRAINT users_one_way")
    op.execute("ALTER TABLE phantoms.users DROP CONSTRAINT users_identity")
    op.execute("ALTER TABLE phantoms.users DROP COLUMN issuer, DROP COLUMN subject")
    op.execute("ALTER TABLE phantoms.users ALTER COLUMN password_hash SET NOT NULL")

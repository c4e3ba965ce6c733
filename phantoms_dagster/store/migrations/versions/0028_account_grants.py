"""Accounts that a person connected: when that was, since when the access token is there, and how its last renewal went."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_COLUMNS = {
    "connected_at": "timestamptz",
    "access_issued_at": "timestamptz",
    "refreshed_at": "timestamptz",
    "refresh_until": "timestamptz",
    "refresh_sha256": "text",
    "dead_generation": "bigint",
}


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.accounts " + ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in _COLUMNS.items()))


def downgrade() -> None:
    op.execute("ALTER TABLE phantoms.accounts " + ", ".join(f"DROP COLUMN {name}" for name in _COLUMNS))

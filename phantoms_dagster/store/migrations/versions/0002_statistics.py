"""Indexes for statistics: counts and the oldest waiting video by stage, and what was finished since some time."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = {
    "stages_by_state": "phantoms.stages (stage, state)",
    "stages_ready": "phantoms.stages (stage, ready_at) WHERE state = 'ready'",
    "stages_deferred": "phantoms.stages (stage, retry_at) WHERE state = 'deferred'",
    "attempts_finished": "phantoms.attempts (finished_at)",
    "posts_published": "phantoms.posts (published_at)",
}


def upgrade() -> None:
    for name, what in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {what}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX phantoms.{name}")

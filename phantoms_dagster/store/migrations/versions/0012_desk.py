"""The desk: who may use it, what waits to be committed, what is on hold, and who did what."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE phantoms.users (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL CONSTRAINT users_once UNIQUE,
            role text NOT NULL CONSTRAINT users_role CHECK (role IN ('viewer', 'reviewer', 'operator')),
            password_hash text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute(
        """
        CREATE TABLE phantoms.desk_sessions (
            id_sha256 text PRIMARY KEY,
            user_id bigint NOT NULL REFERENCES phantoms.users (id) ON DELETE CASCADE,
            address text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            seen_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX desk_sessions_of_user ON phantoms.desk_sessions (user_id)")
    op.execute("CREATE INDEX desk_sessions_ended ON phantoms.desk_sessions (expires_at)")
    op.execute(
        """
        CREATE TABLE phantoms.api_tokens (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL CONSTRAINT api_tokens_once UNIQUE,
            role text NOT NULL CONSTRAINT api_tokens_role CHECK (role IN ('viewer', 'reviewer', 'operator')),
            token_sha256 text NOT NULL CONSTRAINT api_tokens_secret UNIQUE,
            created_at timestamptz NOT NULL DEFAULT now(),
            used_at timestamptz
        )
        """
    )
    op.execute(
        """
        CREATE TABLE phantoms.holds (
            video_id bigint PRIMARY KEY REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            reviewer text NOT NULL,
            note text NOT NULL DEFAULT '',
            via text NOT NULL,
            held_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE INDEX holds_newest ON phantoms.holds (held_at)")
    op.execute(
        """
        CREATE TABLE phantoms.pending_decisions (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            answer text NOT NULL CONSTRAINT pending_decisions_answer CHECK (answer IN ('approve', 'reject', 'hold')),
            platforms text[],
            reviewer text NOT NULL,
            note text NOT NULL DEFAULT '',
            content_sha256 text NOT NULL,
            via text NOT NULL,
            address text NOT NULL DEFAULT '',
            state text NOT NULL DEFAULT 'pending'
                CONSTRAINT pending_decisions_state CHECK (state IN ('pending', 'committed', 'undone', 'refused')),
            outcome text,
            made_at timestamptz NOT NULL DEFAULT now(),
            commit_at timestamptz NOT NULL,
            ended_at timestamptz
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX pending_decisions_one ON phantoms.pending_decisions (video_id) WHERE state = 'pending'")
    op.execute("CREATE INDEX pending_decisions_due ON phantoms.pending_decisions (commit_at) WHERE state = 'pending'")
    op.execute("CREATE INDEX pending_decisions_of_reviewer ON phantoms.pending_decisions (reviewer, made_at)")
    op.execute(
        """
        CREATE TABLE phantoms.audit_log (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            who text NOT NULL,
            via text NOT NULL,
            address text NOT NULL DEFAULT '',
            action text NOT NULL,
            subject text NOT NULL,
            before jsonb,
            after jsonb
        )
        """
    )
    op.execute("CREATE INDEX audit_log_of_subject ON phantoms.audit_log (subject, id)")
    op.execute("CREATE INDEX audit_log_of_person ON phantoms.audit_log (who, id)")


def downgrade() -> None:
    for table in ("audit_log", "pending_decisions", "holds", "api_tokens", "desk_sessions", "users"):
        op.execute(f"DROP TABLE phantoms.{table}")

"""The first schema: videos, their stages and attempts, the ledgers of posts and renders, dead letters, results."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = [
    """
    CREATE TABLE phantoms.accounts (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        platform TEXT NOT NULL,
        name TEXT NOT NULL,
        subject TEXT,
        access_token BYTEA,
        refresh_token BYTEA,
        access_expires_at TIMESTAMP WITH TIME ZONE,
        refresh_expires_at TIMESTAMP WITH TIME ZONE,
        scopes TEXT[] DEFAULT '{}' NOT NULL,
        generation BIGINT DEFAULT 0 NOT NULL,
        state TEXT DEFAULT 'active' NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT accounts_once UNIQUE (platform, name)
    )
    """,
    """
    CREATE TABLE phantoms.channels (
        name TEXT NOT NULL,
        config JSONB NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE phantoms.hook_performance (
        hook TEXT NOT NULL,
        posts BIGINT NOT NULL,
        views BIGINT NOT NULL,
        likes BIGINT NOT NULL,
        comments BIGINT NOT NULL,
        shares BIGINT NOT NULL,
        watch_seconds DOUBLE PRECISION,
        engagement_rate DOUBLE PRECISION,
        cost NUMERIC(12, 6),
        computed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (hook)
    )
    """,
    """
    CREATE TABLE phantoms.platform_performance (
        day DATE NOT NULL,
        platform TEXT NOT NULL,
        channel TEXT NOT NULL,
        posts BIGINT NOT NULL,
        views BIGINT NOT NULL,
        likes BIGINT NOT NULL,
        comments BIGINT NOT NULL,
        shares BIGINT NOT NULL,
        watch_seconds DOUBLE PRECISION,
        engagement_rate DOUBLE PRECISION,
        cost NUMERIC(12, 6),
        computed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (day, platform, channel)
    )
    """,
    """
    CREATE TABLE phantoms.video_performance (
        video_key TEXT NOT NULL,
        title TEXT NOT NULL,
        channel TEXT NOT NULL,
        hook TEXT,
        first_published_at TIMESTAMP WITH TIME ZONE,
        posts BIGINT NOT NULL,
        views BIGINT NOT NULL,
        likes BIGINT NOT NULL,
        comments BIGINT NOT NULL,
        shares BIGINT NOT NULL,
        watch_seconds DOUBLE PRECISION,
        engagement_rate DOUBLE PRECISION,
        cost NUMERIC(12, 6),
        computed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (video_key)
    )
    """,
    """
    CREATE TABLE phantoms.videos (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        key TEXT NOT NULL,
        channel TEXT NOT NULL,
        title TEXT NOT NULL,
        brief JSONB NOT NULL,
        platforms TEXT[] NOT NULL,
        publish_at TIMESTAMP WITH TIME ZONE,
        priority SMALLINT DEFAULT 5 NOT NULL,
        source TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        registered_at TIMESTAMP WITH TIME ZONE,
        retired_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id),
        UNIQUE (key),
        FOREIGN KEY(channel) REFERENCES phantoms.channels (name),
        UNIQUE (fingerprint)
    )
    """,
    """
    CREATE INDEX videos_unregistered ON phantoms.videos (id) WHERE registered_at IS NULL
    """,
    """
    CREATE TABLE phantoms.approvals (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        video_id BIGINT NOT NULL,
        approved BOOLEAN NOT NULL,
        reviewer TEXT NOT NULL,
        note TEXT DEFAULT '' NOT NULL,
        content_sha256 TEXT NOT NULL,
        via TEXT NOT NULL,
        decided_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(video_id) REFERENCES phantoms.videos (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX approvals_of_video ON phantoms.approvals (video_id, id)
    """,
    """
    CREATE TABLE phantoms.attempts (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        video_id BIGINT NOT NULL,
        stage TEXT NOT NULL,
        revision INTEGER NOT NULL,
        generation BIGINT NOT NULL,
        run_id TEXT,
        state TEXT DEFAULT 'intent' NOT NULL,
        provider TEXT,
        provider_ref TEXT,
        response JSONB,
        cost NUMERIC(12, 6) DEFAULT 0 NOT NULL,
        error_class TEXT,
        code TEXT,
        message TEXT,
        evidence JSONB,
        started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        finished_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id),
        FOREIGN KEY(video_id) REFERENCES phantoms.videos (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX attempts_of_stage ON phantoms.attempts (video_id, stage, id)
    """,
    """
    CREATE TABLE phantoms.dead_letters (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        video_id BIGINT NOT NULL,
        stage TEXT NOT NULL,
        revision INTEGER NOT NULL,
        provider TEXT,
        error_class TEXT NOT NULL,
        code TEXT,
        message TEXT NOT NULL,
        evidence JSONB,
        attempts JSONB NOT NULL,
        run_id TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        state TEXT DEFAULT 'open' NOT NULL,
        closed_at TIMESTAMP WITH TIME ZONE,
        closed_by TEXT,
        closed_reason TEXT,
        PRIMARY KEY (id),
        FOREIGN KEY(video_id) REFERENCES phantoms.videos (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE UNIQUE INDEX dead_letters_open ON phantoms.dead_letters (video_id, stage) WHERE state = 'open'
    """,
    """
    CREATE TABLE phantoms.posts (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        video_id BIGINT NOT NULL,
        platform TEXT NOT NULL,
        account TEXT NOT NULL,
        state TEXT DEFAULT 'intent' NOT NULL,
        marker TEXT NOT NULL,
        handle JSONB DEFAULT '{}'::jsonb NOT NULL,
        upload_offset BIGINT DEFAULT 0 NOT NULL,
        remote_id TEXT,
        url TEXT,
        sandbox BOOLEAN DEFAULT false NOT NULL,
        video_sha256 TEXT NOT NULL,
        caption_sha256 TEXT NOT NULL,
        attempted_at TIMESTAMP WITH TIME ZONE,
        published_at TIMESTAMP WITH TIME ZONE,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT posts_once UNIQUE (video_id, platform, account),
        FOREIGN KEY(video_id) REFERENCES phantoms.videos (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX posts_in_flight ON phantoms.posts (platform, account) WHERE state IN ('opened', 'uploading', 'committing')
    """,
    """
    CREATE TABLE phantoms.renders (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        video_id BIGINT NOT NULL,
        revision INTEGER NOT NULL,
        state TEXT DEFAULT 'intent' NOT NULL,
        render_id TEXT,
        attempt_id TEXT,
        attempted_at TIMESTAMP WITH TIME ZONE,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT renders_once UNIQUE (video_id, revision),
        FOREIGN KEY(video_id) REFERENCES phantoms.videos (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE phantoms.stages (
        video_id BIGINT NOT NULL,
        stage TEXT NOT NULL,
        revision INTEGER DEFAULT 1 NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        generation BIGINT DEFAULT 0 NOT NULL,
        ready_at TIMESTAMP WITH TIME ZONE,
        retry_at TIMESTAMP WITH TIME ZONE,
        lease_owner TEXT,
        lease_until TIMESTAMP WITH TIME ZONE,
        run_id TEXT,
        output JSONB,
        provider_ref TEXT,
        cost NUMERIC(12, 6) DEFAULT 0 NOT NULL,
        error_class TEXT,
        reason TEXT,
        started_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (video_id, stage),
        FOREIGN KEY(video_id) REFERENCES phantoms.videos (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX stages_leases ON phantoms.stages (lease_owner) WHERE state = 'running'
    """,
    """
    CREATE INDEX stages_waiting ON phantoms.stages (stage, state, video_id) WHERE state IN ('ready', 'deferred', 'running', 'failed')
    """,
    """
    CREATE TABLE phantoms.metric_snapshots (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        post_id BIGINT NOT NULL,
        at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        views BIGINT,
        likes BIGINT,
        comments BIGINT,
        shares BIGINT,
        watch_seconds DOUBLE PRECISION,
        PRIMARY KEY (id),
        FOREIGN KEY(post_id) REFERENCES phantoms.posts (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX metric_snapshots_of_post ON phantoms.metric_snapshots (post_id, at)
    """,
]

TABLES = ['metric_snapshots', 'stages', 'renders', 'posts', 'dead_letters', 'attempts', 'approvals', 'videos', 'video_performance', 'platform_performance', 'hook_performance', 'channels', 'accounts']


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE phantoms.{table}")

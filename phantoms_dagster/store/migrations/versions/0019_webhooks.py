"""Webhooks: endpoints, events, deliveries and their attempts, and the triggers that write events. Notices of waiting approvals."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE phantoms.webhook_endpoints (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        url text NOT NULL,
        note text NOT NULL DEFAULT '',
        events text[] NOT NULL,
        secret text NOT NULL,
        old_secret text,
        old_secret_until timestamptz,
        state text NOT NULL DEFAULT 'active',
        reason text NOT NULL DEFAULT '',
        failures integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        pause_until timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE phantoms.webhook_events (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        message_id text NOT NULL,
        type text NOT NULL,
        source text NOT NULL,
        at timestamptz NOT NULL,
        data jsonb NOT NULL,
        CONSTRAINT webhook_events_once UNIQUE (source)
    )
    """,
    "CREATE INDEX webhook_events_oldest ON phantoms.webhook_events (at)",
    """
    CREATE TABLE phantoms.webhook_deliveries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id bigint NOT NULL REFERENCES phantoms.webhook_events (id) ON DELETE CASCADE,
        endpoint_id bigint NOT NULL,
        state text NOT NULL,
        reason text NOT NULL DEFAULT '',
        tries integer NOT NULL DEFAULT 0,
        claim bigint NOT NULL DEFAULT 0,
        next_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    )
    """,
    "CREATE INDEX webhook_deliveries_of_event ON phantoms.webhook_deliveries (event_id)",
    "CREATE INDEX webhook_deliveries_due ON phantoms.webhook_deliveries (endpoint_id, next_at) WHERE state = 'pending'",
    "CREATE INDEX webhook_deliveries_by_state ON phantoms.webhook_deliveries (state, id)",
    "CREATE INDEX webhook_deliveries_of_endpoint ON phantoms.webhook_deliveries (endpoint_id, state, id)",
    """
    CREATE TABLE phantoms.webhook_attempts (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        delivery_id bigint NOT NULL REFERENCES phantoms.webhook_deliveries (id) ON DELETE CASCADE,
        at timestamptz NOT NULL,
        seconds double precision NOT NULL,
        status integer,
        error text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX webhook_attempts_of_delivery ON phantoms.webhook_attempts (delivery_id, id)",
    """
    CREATE TABLE phantoms.review_destinations (
        name text PRIMARY KEY,
        failures integer NOT NULL DEFAULT 0,
        retry_at timestamptz
    )
    """,
    """
    CREATE TABLE phantoms.review_notices (
        destination text NOT NULL,
        video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
        ready_at timestamptz NOT NULL,
        told_at timestamptz NOT NULL,
        PRIMARY KEY (destination, video_id)
    )
    """,
)

# As `store.webhook_triggers` has them.
TRIGGERS = (
    """
        CREATE FUNCTION phantoms.tell_webhooks(kind text, origin text, body jsonb, happened timestamptz) RETURNS void
        LANGUAGE plpgsql AS $$
        DECLARE
            made bigint;
        BEGIN
            IF NOT EXISTS (
                SELECT FROM phantoms.webhook_endpoints e
                WHERE e.state <> 'removed' AND kind = ANY(e.events) AND e.created_at <= happened
            ) THEN
                RETURN;
            END IF;
            INSERT INTO phantoms.webhook_events (message_id, type, source, data, at)
            VALUES ('msg_' || replace(CAST(gen_random_uuid() AS text), '-', ''), kind, origin, body, happened)
            ON CONFLICT (source) DO NOTHING RETURNING id INTO made;
            INSERT INTO phantoms.webhook_deliveries (event_id, endpoint_id, state, reason, ended_at)
            SELECT made, e.id, CASE WHEN e.state = 'active' THEN 'pending' ELSE 'failed' END,
                CASE WHEN e.state = 'active' THEN '' ELSE 'the endpoint was disabled' END,
                CASE WHEN e.state = 'active' THEN NULL ELSE clock_timestamp() END
            FROM phantoms.webhook_endpoints e
            WHERE made IS NOT NULL AND e.state <> 'removed' AND kind = ANY(e.events) AND e.created_at <= happened;
        END $$
        """,
    """
        CREATE FUNCTION phantoms.tell_of_stage() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.stage = 'approval' THEN
                PERFORM phantoms.tell_webhooks('approval.wanted', 'approval/' || NEW.video_id || '/' || NEW.revision,
                    jsonb_build_object('video', jsonb_build_object('key', v.key, 'title', v.title, 'channel', v.channel),
                        'revision', NEW.revision, 'platforms', to_jsonb(v.platforms), 'publish_at', v.publish_at),
                    clock_timestamp())
                FROM phantoms.videos v WHERE v.id = NEW.video_id;
            ELSE
                PERFORM phantoms.tell_webhooks('video.posted',
                    'post/' || NEW.video_id || '/' || NEW.stage || '/' || NEW.revision,
                    jsonb_build_object('video', jsonb_build_object('key', v.key, 'title', v.title, 'channel', v.channel),
                        'post', jsonb_build_object('platform', split_part(NEW.stage, '/', 1), 'account', NEW.output->'account',
                            'id', NEW.output->'remote_id', 'url', NEW.output->'url', 'published_at', NEW.output->'published_at',
                            'sandbox', COALESCE(NEW.output->'sandbox', 'false'))), clock_timestamp())
                FROM phantoms.videos v WHERE v.id = NEW.video_id;
            END IF;
            RETURN NULL;
        END $$
        """,
    """
        CREATE FUNCTION phantoms.tell_of_letter() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM phantoms.tell_webhooks('video.failed', 'letter/' || NEW.id,
                jsonb_build_object('video', jsonb_build_object('key', v.key, 'title', v.title, 'channel', v.channel),
                    'failure', jsonb_build_object('letter', NEW.id, 'stage', NEW.stage, 'provider', NEW.provider,
                        'class', NEW.error_class, 'code', NEW.code, 'message', "left"(NEW.message, 500), 'issue', NEW.cause)),
                clock_timestamp())
            FROM phantoms.videos v WHERE v.id = NEW.video_id;
            RETURN NULL;
        END $$
        """,
    """
        CREATE TRIGGER webhooks_of_approvals AFTER UPDATE OF state, revision ON phantoms.stages FOR EACH ROW
        WHEN (NEW.stage = 'approval' AND NEW.state = 'ready' AND (OLD.state <> 'ready' OR OLD.revision <> NEW.revision))
        EXECUTE FUNCTION phantoms.tell_of_stage()
        """,
    """
        CREATE TRIGGER webhooks_of_posts AFTER UPDATE OF state ON phantoms.stages FOR EACH ROW
        WHEN (NEW.state = 'done' AND OLD.state <> 'done' AND "right"(NEW.stage, 5) = '/post')
        EXECUTE FUNCTION phantoms.tell_of_stage()
        """,
    """
        CREATE TRIGGER webhooks_of_letters AFTER INSERT ON phantoms.dead_letters FOR EACH ROW
        EXECUTE FUNCTION phantoms.tell_of_letter()
        """,
)


def upgrade() -> None:
    for statement in (*TABLES, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER webhooks_of_letters ON phantoms.dead_letters")
    op.execute("DROP TRIGGER webhooks_of_posts ON phantoms.stages")
    op.execute("DROP TRIGGER webhooks_of_approvals ON phantoms.stages")
    op.execute("DROP FUNCTION phantoms.tell_of_letter()")
    op.execute("DROP FUNCTION phantoms.tell_of_stage()")
    op.execute("DROP FUNCTION phantoms.tell_webhooks(text, text, jsonb, timestamptz)")
    for table in ("review_notices", "review_destinations", "webhook_attempts", "webhook_deliveries", "webhook_events", "webhook_endpoints"):
        op.execute(f"DROP TABLE phantoms.{table}")

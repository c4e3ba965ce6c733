"""Database functions and triggers that write webhook events. Migrations also create them, and a test compares both.

A trigger writes the event in the transaction of its cause, whichever statement that was, so nothing that is rolled back is
reported. Without an endpoint for that type of event nothing is written. The SQL contains no percent sign, which SQLAlchemy would
take for a placeholder.
"""

from __future__ import annotations

TELL = """
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
        """
OF_STAGE = """
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
        """
OF_LETTER = """
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
        """
# The conditions are checked for each changed row without a function call.
TRIGGERS = (
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
CREATE = (TELL, OF_STAGE, OF_LETTER, *TRIGGERS)

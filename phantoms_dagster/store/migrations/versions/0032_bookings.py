"""The calendar: bookings of posts, which are unique for a slot of an account, missed slots, and why a post waits after its time."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
        CREATE TABLE phantoms.bookings (
            video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            platform text NOT NULL,
            account text NOT NULL,
            at timestamptz NOT NULL,
            kind text NOT NULL CONSTRAINT bookings_kind CHECK (kind IN ('slot', 'fixed', 'now')),
            state text NOT NULL CONSTRAINT bookings_state CHECK (state IN ('booked', 'missed', 'cancelled', 'repeat')),
            note text NOT NULL DEFAULT '',
            why text,
            sequence integer NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (video_id, platform)
        )
        """,
    """
        CREATE UNIQUE INDEX bookings_once ON phantoms.bookings (platform, account, at)
        WHERE kind = 'slot' AND state IN ('booked', 'repeat')
        """,
    "CREATE INDEX bookings_by_time ON phantoms.bookings (at)",
    "CREATE INDEX bookings_that_wait ON phantoms.bookings (state) WHERE state IN ('missed', 'repeat')",
    """
        CREATE TABLE phantoms.missed_slots (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            video_id bigint NOT NULL REFERENCES phantoms.videos (id) ON DELETE CASCADE,
            platform text NOT NULL,
            account text NOT NULL,
            at timestamptz NOT NULL,
            noticed_at timestamptz NOT NULL DEFAULT now(),
            why text NOT NULL,
            policy text NOT NULL
        )
        """,
    "CREATE INDEX missed_slots_of_video ON phantoms.missed_slots (video_id, id)",
    "CREATE INDEX missed_slots_by_time ON phantoms.missed_slots (at)",
    # As `store.booking_triggers` has them.
    """
        CREATE FUNCTION phantoms.keep_why_a_post_waits() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE phantoms.bookings SET why = NEW.reason
            WHERE video_id = NEW.video_id AND platform = split_part(NEW.stage, '/', 1) AND state = 'booked'
                AND at <= clock_timestamp();
            RETURN NULL;
        END $$
        """,
    """
        CREATE TRIGGER bookings_of_waiting_posts AFTER UPDATE OF state ON phantoms.stages FOR EACH ROW
        WHEN (NEW.state = 'deferred' AND NEW.reason IS NOT NULL AND "right"(NEW.stage, 5) = '/post')
        EXECUTE FUNCTION phantoms.keep_why_a_post_waits()
        """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER bookings_of_waiting_posts ON phantoms.stages")
    op.execute("DROP FUNCTION phantoms.keep_why_a_post_waits()")
    op.execute("DROP TABLE phantoms.missed_slots, phantoms.bookings")

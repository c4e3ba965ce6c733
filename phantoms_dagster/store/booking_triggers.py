"""The trigger that keeps why a post did not go out at its booked time. Migrations also create it, and a test compares both.

A claim clears the reason of a stage that waited, and an attempt that sent nothing leaves no row. The booking is where the reason of
a missed slot is looked up.
"""

from __future__ import annotations

WHY = """
        CREATE FUNCTION phantoms.keep_why_a_post_waits() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE phantoms.bookings SET why = NEW.reason
            WHERE video_id = NEW.video_id AND platform = split_part(NEW.stage, '/', 1) AND state = 'booked'
                AND at <= clock_timestamp();
            RETURN NULL;
        END $$
        """
TRIGGER = """
        CREATE TRIGGER bookings_of_waiting_posts AFTER UPDATE OF state ON phantoms.stages FOR EACH ROW
        WHEN (NEW.state = 'deferred' AND NEW.reason IS NOT NULL AND "right"(NEW.stage, 5) = '/post')
        EXECUTE FUNCTION phantoms.keep_why_a_post_waits()
        """
CREATE = (WHY, TRIGGER)

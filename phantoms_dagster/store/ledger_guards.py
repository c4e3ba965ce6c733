"""Triggers with which PostgreSQL refuses every step of a post or a paid render that the tables in `domain` forbid.

Migrations also create them, and a test compares both.

A row that keeps its state is not checked, because a transaction that is repeated after a lost answer finds its own row.
The SQL contains no percent sign, which SQLAlchemy would take for a placeholder.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from phantoms_dagster.domain import paid_job, publication
from phantoms_dagster.domain.paid_job import PAID_TRANSITIONS, PaidState
from phantoms_dagster.domain.publication import POST_TRANSITIONS
from phantoms_dagster.domain.stages import PostState

POST_STEPS = [(a, b) for a in PostState for b in PostState if a is not b and b in POST_TRANSITIONS[a]]
PAID_STEPS = [(a, b) for a in PaidState for b in PaidState if a is not b and b in PAID_TRANSITIONS[a]]
POST_PROVEN = [step for step in POST_STEPS if step in publication.NEEDS_PROOF]
PAID_PROVEN = [step for step in PAID_STEPS if step in paid_job.NEEDS_PROOF]
PAID_WRITTEN_OFF = [step for step in PAID_STEPS if step in paid_job.NEEDS_WRITE_OFF]


def _pairs(steps: Iterable[tuple[StrEnum, StrEnum]], excluded: Iterable[tuple[StrEnum, StrEnum]] = ()) -> str:
    return ", ".join(f"'{before} {after}'" for before, after in steps if (before, after) not in excluded)


GUARD_POST = f"""
        CREATE FUNCTION phantoms.guard_post() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            step text := OLD.state || ' ' || NEW.state;
        BEGIN
            IF step IN ({_pairs(POST_STEPS, excluded=POST_PROVEN)}) THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(POST_PROVEN)}) THEN
                IF NEW.proof IS NOT NULL AND NEW.proved_at IS NOT NULL AND NEW.proved_at IS DISTINCT FROM OLD.proved_at THEN
                    RETURN NEW;
                END IF;
                RAISE check_violation USING MESSAGE = 'post ' || OLD.id || ': a post that is ' || OLD.state || ' becomes '
                    || NEW.state || ' only with the proof that it is not published';
            END IF;
            -- Begun in the sandbox and begun again for real: nothing of it is public.
            IF OLD.sandbox AND NEW.sandbox AND step IN ('committing failed', 'unknown failed', 'handed_over failed') THEN
                RETURN NEW;
            END IF;
            RAISE check_violation USING MESSAGE = 'post ' || OLD.id || ': a post that is ' || OLD.state || ' cannot become '
                || NEW.state;
        END $$
        """
TRIGGER_POST = """
        CREATE TRIGGER posts_guard BEFORE UPDATE OF state ON phantoms.posts FOR EACH ROW
        WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION phantoms.guard_post()
        """
GUARD_RENDER = f"""
        CREATE FUNCTION phantoms.guard_render() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            step text := OLD.state || ' ' || NEW.state;
            proven boolean := NEW.proof IS NOT NULL AND NEW.proved_at IS NOT NULL
                AND NEW.proved_at IS DISTINCT FROM OLD.proved_at;
        BEGIN
            IF (NEW.state = 'sending' AND NEW.attempt_id IS NULL) OR (NEW.state = 'submitted' AND NEW.render_id IS NULL) THEN
                RAISE check_violation USING MESSAGE = 'render ' || OLD.id || ': a render that is ' || NEW.state || ' has an id';
            END IF;
            IF step IN ({_pairs(PAID_STEPS, excluded=[*PAID_PROVEN, *PAID_WRITTEN_OFF])}) THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(PAID_PROVEN)}) AND proven THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(PAID_WRITTEN_OFF)}) AND proven AND NEW.written_off IS NOT NULL THEN
                RETURN NEW;
            END IF;
            -- Begun in the sandbox and begun again for real: nothing was paid.
            IF OLD.sandbox AND NOT NEW.sandbox AND NEW.state = 'intent' THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs([*PAID_PROVEN, *PAID_WRITTEN_OFF])}) THEN
                RAISE check_violation USING MESSAGE = 'render ' || OLD.id || ': a render that is ' || OLD.state
                    || ' is ordered again only when it was not billed, or is written off';
            END IF;
            RAISE check_violation USING MESSAGE = 'render ' || OLD.id || ': a render that is ' || OLD.state || ' cannot become '
                || NEW.state;
        END $$
        """
TRIGGER_RENDER = """
        CREATE TRIGGER renders_guard BEFORE UPDATE OF state ON phantoms.renders FOR EACH ROW
        WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION phantoms.guard_render()
        """
CREATE = (GUARD_POST, TRIGGER_POST, GUARD_RENDER, TRIGGER_RENDER)

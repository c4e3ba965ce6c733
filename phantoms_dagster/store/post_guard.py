"""The trigger by which PostgreSQL refuses a step of a post that `domain.publication` forbids.

Migrations make it, too; a test holds both together.

A row that keeps its state is not checked: a transaction that is repeated because its answer was lost finds its own row.
Nothing here has a percent sign: SQLAlchemy would take it for a placeholder.
"""

from __future__ import annotations

from phantoms_dagster.domain.publication import NEEDS_PROOF, POST_TRANSITIONS
from phantoms_dagster.domain.stages import PostState

STEPS = [(a, b) for a in PostState for b in PostState if a is not b and b in POST_TRANSITIONS[a]]


def _pairs(*, proven: bool) -> str:
    return ", ".join(f"'{before} {after}'" for before, after in STEPS if ((before, after) in NEEDS_PROOF) is proven)


GUARD = f"""
        CREATE FUNCTION phantoms.guard_post() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            step text := OLD.state || ' ' || NEW.state;
        BEGIN
            IF step IN ({_pairs(proven=False)}) THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(proven=True)}) THEN
                IF NEW.proof IS NOT NULL AND NEW.proved_at IS NOT NULL AND NEW.proved_at IS DISTINCT FROM OLD.proved_at THEN
                    RETURN NEW;
                END IF;
                RAISE check_violation USING MESSAGE = 'post ' || OLD.id || ': a post that is ' || OLD.state || ' becomes '
                    || NEW.state || ' only with the proof that it is not published';
            END IF;
            -- Begun in the sandbox and begun again for real: nothing of it is public.
            IF OLD.sandbox AND NEW.sandbox AND step IN ('committing failed', 'unknown failed') THEN
                RETURN NEW;
            END IF;
            RAISE check_violation USING MESSAGE = 'post ' || OLD.id || ': a post that is ' || OLD.state || ' cannot become '
                || NEW.state;
        END $$
        """
TRIGGER = """
        CREATE TRIGGER posts_guard BEFORE UPDATE OF state ON phantoms.posts FOR EACH ROW
        WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION phantoms.guard_post()
        """
CREATE = (GUARD, TRIGGER)

"""The database itself refuses a step of a paid render that the table of states forbids (`domain.paid_job`), whatever code asks for it.

A step that lets a render be ordered again needs a fresh proof that the first one was not billed, or the amount that is written off for
it. What was certainly paid can only be written off.
"""

from collections.abc import Mapping

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

FREE = {"intent": ("sending",), "sending": ("unknown", "submitted"), "unknown": ("submitted",), "submitted": ("done",)}
PROVEN = {"sending": ("intent",), "unknown": ("intent",)}
WRITTEN_OFF = {"submitted": ("intent",), "done": ("intent",)}


def _pairs(steps: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"'{before} {after}'" for before, afters in steps.items() for after in afters)


# As `store.ledger_guards` has it.
GUARD = f"""
        CREATE FUNCTION phantoms.guard_render() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            step text := OLD.state || ' ' || NEW.state;
            proven boolean := NEW.proof IS NOT NULL AND NEW.proved_at IS NOT NULL
                AND NEW.proved_at IS DISTINCT FROM OLD.proved_at;
        BEGIN
            IF (NEW.state = 'sending' AND NEW.attempt_id IS NULL) OR (NEW.state = 'submitted' AND NEW.render_id IS NULL) THEN
                RAISE check_violation USING MESSAGE = 'render ' || OLD.id || ': a render that is ' || NEW.state || ' has an id';
            END IF;
            IF step IN ({_pairs(FREE)}) THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(PROVEN)}) AND proven THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(WRITTEN_OFF)}) AND proven AND NEW.written_off IS NOT NULL THEN
                RETURN NEW;
            END IF;
            -- Begun in the sandbox and begun again for real: nothing was paid.
            IF OLD.sandbox AND NOT NEW.sandbox AND NEW.state = 'intent' THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(PROVEN)}, {_pairs(WRITTEN_OFF)}) THEN
                RAISE check_violation USING MESSAGE = 'render ' || OLD.id || ': a render that is ' || OLD.state
                    || ' is ordered again only when it was not billed, or is written off';
            END IF;
            RAISE check_violation USING MESSAGE = 'render ' || OLD.id || ': a render that is ' || OLD.state || ' cannot become '
                || NEW.state;
        END $$
        """


def upgrade() -> None:
    op.execute(
        "ALTER TABLE phantoms.renders ADD COLUMN proof text, ADD COLUMN proved_at timestamptz, ADD COLUMN written_off numeric(12, 6)"
    )
    op.execute(GUARD)
    op.execute(
        """
        CREATE TRIGGER renders_guard BEFORE UPDATE OF state ON phantoms.renders FOR EACH ROW
        WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION phantoms.guard_render()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER renders_guard ON phantoms.renders")
    op.execute("DROP FUNCTION phantoms.guard_render()")
    op.execute("ALTER TABLE phantoms.renders DROP COLUMN proof, DROP COLUMN proved_at, DROP COLUMN written_off")

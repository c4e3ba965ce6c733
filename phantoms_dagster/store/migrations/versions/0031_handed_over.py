"""Posts that were handed over to their creator as a draft, and the route that each post was begun on.

Only the creator can publish such a post. It leaves that state when the platform or a person says that it is public, or with a proof
that it is not. A row that keeps its state is not checked, as before.
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

FREE = {
    "intent": ("opened", "failed"),
    "opened": ("uploading", "committing", "unknown", "failed"),
    "uploading": ("committing", "unknown", "failed"),
    "committing": ("unknown", "published"),
    "unknown": ("published",),
    "published": ("confirmed",),
    "failed": ("intent",),
}
PROVEN = {
    "opened": ("intent",),
    "uploading": ("intent",),
    "committing": ("intent", "opened", "uploading"),
    "unknown": ("intent", "opened", "committing"),
}
LEFT_SANDBOX = ("committing failed", "unknown failed")


def _pairs(steps: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"'{before} {after}'" for before, afters in steps.items() for after in afters)


def _guard(free: dict[str, tuple[str, ...]], proven: dict[str, tuple[str, ...]], left_sandbox: tuple[str, ...]) -> str:
    """As `store.ledger_guards` has it."""
    left = ", ".join(f"'{step}'" for step in left_sandbox)
    return f"""
        CREATE OR REPLACE FUNCTION phantoms.guard_post() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            step text := OLD.state || ' ' || NEW.state;
        BEGIN
            IF step IN ({_pairs(free)}) THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(proven)}) THEN
                IF NEW.proof IS NOT NULL AND NEW.proved_at IS NOT NULL AND NEW.proved_at IS DISTINCT FROM OLD.proved_at THEN
                    RETURN NEW;
                END IF;
                RAISE check_violation USING MESSAGE = 'post ' || OLD.id || ': a post that is ' || OLD.state || ' becomes '
                    || NEW.state || ' only with the proof that it is not published';
            END IF;
            -- Begun in the sandbox and begun again for real: nothing of it is public.
            IF OLD.sandbox AND NEW.sandbox AND step IN ({left}) THEN
                RETURN NEW;
            END IF;
            RAISE check_violation USING MESSAGE = 'post ' || OLD.id || ': a post that is ' || OLD.state || ' cannot become '
                || NEW.state;
        END $$
        """


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.posts ADD COLUMN route text NOT NULL DEFAULT ''")
    free = {
        **{state: FREE[state] for state in ("intent", "opened", "uploading")},
        "committing": ("unknown", "handed_over", "published"),
        "unknown": ("handed_over", "published"),
        "handed_over": ("published",),
        **{state: FREE[state] for state in ("published", "failed")},
    }
    op.execute(_guard(free, {**PROVEN, "handed_over": ("intent",)}, (*LEFT_SANDBOX, "handed_over failed")))


def downgrade() -> None:
    # Older versions do not know the state. There, a person settles such a post.
    op.execute("ALTER TABLE phantoms.posts DISABLE TRIGGER posts_guard")
    op.execute("UPDATE phantoms.posts SET state = 'unknown' WHERE state = 'handed_over'")
    op.execute("ALTER TABLE phantoms.posts ENABLE TRIGGER posts_guard")
    op.execute(_guard(FREE, PROVEN, LEFT_SANDBOX))
    op.execute("ALTER TABLE phantoms.posts DROP COLUMN route")

"""The database itself refuses what the table of posts' states forbids (`domain.publication`), whatever code asks for it.

A step that lets a post be sent again is refused unless it brings a fresh proof that the post is not out. A row that keeps its state is
not checked: a transaction that is repeated because its answer was lost finds its own row.
"""

from alembic import op

revision = "0026"
down_revision = "0025"
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


def _pairs(steps: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"'{before} {after}'" for before, afters in steps.items() for after in afters)


# As `store.ledger_guards` has it.
GUARD = f"""
        CREATE FUNCTION phantoms.guard_post() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            step text := OLD.state || ' ' || NEW.state;
        BEGIN
            IF step IN ({_pairs(FREE)}) THEN
                RETURN NEW;
            END IF;
            IF step IN ({_pairs(PROVEN)}) THEN
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


def upgrade() -> None:
    op.execute("ALTER TABLE phantoms.posts ADD COLUMN proof text, ADD COLUMN proved_at timestamptz")
    op.execute(GUARD)
    op.execute(
        """
        CREATE TRIGGER posts_guard BEFORE UPDATE OF state ON phantoms.posts FOR EACH ROW
        WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION phantoms.guard_post()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER posts_guard ON phantoms.posts")
    op.execute("DROP FUNCTION phantoms.guard_post()")
    op.execute("ALTER TABLE phantoms.posts DROP COLUMN proof, DROP COLUMN proved_at")

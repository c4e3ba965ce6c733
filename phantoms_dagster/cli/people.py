"""Who types a command, as the audit log names them."""

from phantoms_dagster.store.audit import Actor
from phantoms_dagster.wiring.this_user import this_user


def actor() -> Actor:
    """The system's user, at the command line."""
    return Actor(this_user(), "cli")

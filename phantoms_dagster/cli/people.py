"""The user of the command line, for the audit log."""

from phantoms_dagster.store.audit import Actor
from phantoms_dagster.wiring.this_user import this_user


def actor() -> Actor:
    """Return the system user, acting through the command line."""
    return Actor(this_user(), "cli")

"""The entry point of `phantoms`. Ctrl-C during the imports ends it without a traceback."""

import sys
from collections.abc import Sequence

INTERRUPTED = 130
# These commands run until they are stopped, so Ctrl-C is their normal end, even while they are starting.
STAYING = frozenset({"up", "watch", "sandbox", "desk", "metrics", "worker"})
# These only read, so Ctrl-C leaves nothing half done.
READING = frozenset({"doctor", "logs", "pools", "preflight", "settings", "show", "status"})
_FOLLOW = frozenset({"--follow", "-f"})


def interrupted(arguments: Sequence[str]) -> int:
    """Return the exit code after Ctrl-C for the command in these arguments."""
    name = arguments[0] if arguments else ""
    return 0 if name in STAYING or (name == "logs" and _FOLLOW.intersection(arguments)) else INTERRUPTED


def main() -> None:
    """Run the command that the arguments name."""
    try:
        from phantoms_dagster.cli.main import main as run  # noqa: PLC0415 - the slow imports must be inside the `try`
    except KeyboardInterrupt:
        sys.exit(interrupted(sys.argv[1:]))
    run()

"""Where the command `phantoms` begins: Ctrl-C ends it without a traceback while it still imports what it is."""

import sys
from collections.abc import Sequence

INTERRUPTED = 130
# They go on until somebody stops them, so that Ctrl-C is their proper end, also while they still start.
STAYING = frozenset({"up", "watch", "sandbox", "desk", "metrics", "worker"})
_FOLLOW = frozenset({"--follow", "-f"})


def interrupted(arguments: Sequence[str]) -> int:
    """The exit code after Ctrl-C of the command that these arguments name."""
    name = arguments[0] if arguments else ""
    return 0 if name in STAYING or (name == "logs" and _FOLLOW.intersection(arguments)) else INTERRUPTED


def main() -> None:
    """Run the command that the arguments name."""
    try:
        from phantoms_dagster.cli.main import main as run  # noqa: PLC0415 - what takes long is inside the `try`
    except KeyboardInterrupt:
        sys.exit(interrupted(sys.argv[1:]))
    run()

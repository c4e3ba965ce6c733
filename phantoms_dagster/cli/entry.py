"""Where the command `phantoms` begins: Ctrl-C ends it without a traceback while it still imports what it is."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command that the arguments name."""
    try:
        from phantoms_dagster.cli.main import main as run  # noqa: PLC0415 - what takes long is inside the `try`
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()

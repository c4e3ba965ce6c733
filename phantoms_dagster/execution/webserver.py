"""`python -m phantoms_dagster.execution.webserver -w workspace.yaml`: Dagster's web server, once the code server answers.

Its arguments are those of `dagster-webserver`.
"""

from __future__ import annotations

import sys

from dagster_webserver.cli import main as serve

from phantoms_dagster.execution.code_server import await_code_server


def main() -> None:
    """Wait for the code server, then be `dagster-webserver`."""
    await_code_server(sys.argv[1:])
    serve()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()

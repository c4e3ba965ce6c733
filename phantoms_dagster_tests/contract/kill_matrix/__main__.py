"""Runs the whole matrix and rewrites `docs/never-twice.md`. Exits with 1 when a cell is wrong."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from phantoms_dagster_tests.contract.kill_matrix.cells import run_route
from phantoms_dagster_tests.contract.kill_matrix.page import PAGE, page
from phantoms_dagster_tests.contract.kill_matrix.routes import ALL_ROUTES, small_chunks


def main() -> int:
    """See the module."""
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder, small_chunks():
        for name, route in ALL_ROUTES.items():
            outcomes[name] = asyncio.run(run_route(name, route, Path(folder) / name))
            sys.stdout.write(f"{route.title}: {sum(not one.does_not_apply for one in outcomes[name])} cells\n")
    PAGE.write_text(page(outcomes), encoding="utf-8")
    wrong = [one for found in outcomes.values() for one in found if one.wrong]
    for one in wrong:
        sys.stdout.write(f"wrong: {one}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

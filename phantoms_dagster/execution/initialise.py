"""Prepares the Dagster instance once, before any process of it starts: several that do so at once kill one another.

Runs that a killed `phantoms up` left behind are not touched: other machines may carry them, and those that nobody carries are
resumed by Dagster's monitoring.
"""

from __future__ import annotations

import dagster as dg


def main() -> None:
    """Create Dagster's tables."""
    with dg.DagsterInstance.get():
        pass


if __name__ == "__main__":
    main()

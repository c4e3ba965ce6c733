"""`definitions` with Dagster's default executor: a process for each step."""

from unittest import mock

import dagster as dg

with mock.patch("dagster.in_process_executor", dg.multiprocess_executor):
    from phantoms_dagster_tests.benchmarks.definitions import defs

__all__ = ["defs"]

"""The kill matrix: each route onto a platform, each verb of the engine, each fault. `docs/never-twice.md` has its outcome.

`python -m phantoms_dagster_tests.contract.kill_matrix` runs it and rewrites that page.
"""

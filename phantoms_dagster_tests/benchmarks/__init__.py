"""Measures what the project promises under faults and under load: `python -m phantoms_dagster_tests.benchmarks NAME`.

Each benchmark is one file. They share `world` (servers, sandbox, videos), `fleet` and `completion` (worker processes of the
product's own code), `local_stand_ins` (the two CPU-heavy local parts), `reconciliation` (tables against the sandbox's ledger),
`report`.
"""

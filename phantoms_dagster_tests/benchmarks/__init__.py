"""Measures what the project promises under faults and under load: `python -m phantoms_dagster_tests.benchmarks NAME`.

One file per benchmark; what they share: `world` (servers, sandbox, videos), `fleet` and `completion` (worker processes of the
product's own code), `local_stand_ins` (the two CPU-heavy local parts), `reconciliation` (tables against the sandbox's ledger),
`report`.
"""

"""What the project promises under faults and under load, measured: `python -m phantoms_dagster_tests.benchmarks NAME`.

One file per benchmark; what they share: `world` (servers, sandbox, videos), `fleet` and `carrying` (worker processes of the
product's own code), `standins` (the two CPU-heavy local parts), `truth` (tables against the sandbox's ledger), `report`.
"""

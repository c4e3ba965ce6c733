"""PostgreSQL, the only source of truth: schema, migrations, and one module for each kind of data."""

"""PostgreSQL: the only truth. Schema, migrations, and one file per thing that is remembered."""

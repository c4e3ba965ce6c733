"""Alembic's environment. `phantoms up` and `phantoms init` run migrations; importing never does."""

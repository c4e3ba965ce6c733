"""Alembic's environment. Migrations are run by `phantoms up`, never at import."""

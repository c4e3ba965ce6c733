# Tasks. `uv run just` lists them; with `just` installed, leave `uv run` out.

# uv warns if another environment is active.
unexport VIRTUAL_ENV

# List the tasks
default:
    @just --list --unsorted

# The quick tests: they take less than two minutes
test *options:
    uv run pytest -m "not slow" {{ options }} phantoms_dagster_tests/unit

# All tests (half an hour on two cores)
test-all *options:
    uv run pytest {{ options }}

# The tests of Dagster runs again, on Dagster's public names only: an upgrade of Dagster may cost speed, but nothing else
test-fallbacks:
    PHANTOMS_DAGSTER_FAST_PATHS=off uv run pytest phantoms_dagster_tests/integration/test_dagster_fallbacks.py phantoms_dagster_tests/integration/test_launcher.py phantoms_dagster_tests/integration/test_retirement_in_flight.py

# ruff, mypy, import-linter
lint:
    uv run ruff check .
    uv run ruff format --check .
    uv run mypy
    uv run lint-imports

# Format the code, and fix what ruff can fix
fix:
    uv run ruff check --fix .
    uv run ruff format .

# Build the site of docs/ into build/site; a broken link is an error
docs:
    uv run zensical build --config-file .zensical.toml --strict --clean
    @! grep -rEl '<(script|link|img)[^>]* (src|href)="?https?://' build/site --include='*.html' || (echo "the site loads something from another host" >&2; exit 1)

# Show the site while you write
docs-serve:
    uv run zensical serve --config-file .zensical.toml

# Rewrite the generated tables in the documents
tables:
    uv run python -m phantoms_dagster_tests.unit.test_readme

# Three videos, posted to the sandbox
demo *options:
    uv run phantoms demo {{ options }}

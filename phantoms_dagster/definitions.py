"""The entry point that Dagster loads."""

from phantoms_dagster.defs.build import build_definitions

defs = build_definitions()

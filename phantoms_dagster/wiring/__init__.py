"""The composition root: from settings to real objects, made when they are first needed. No decisions are made here."""

from phantoms_dagster.wiring.endpoints import INTEGRATIONS
from phantoms_dagster.wiring.workshop import Workshop

__all__ = ["INTEGRATIONS", "Workshop"]

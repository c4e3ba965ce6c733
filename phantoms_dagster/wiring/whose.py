"""Asking the platforms whose each account's token is, for a person who checks an installation. No post is made."""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Identity
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.pipeline import identity_readers
from phantoms_dagster.wiring.tokens import AccountTokens

SECONDS = 20.0


async def whose(settings: Settings, endpoints: Endpoints, platform: Platform, account: str, place: str | None) -> Identity:
    """The owner of that account's token. Raises what the platform's table of errors says."""

    async def places() -> dict[tuple[str, str], str]:
        return {(str(platform), account): place} if place else {}

    tokens = AccountTokens(endpoints, places)
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        clients = dict.fromkeys(("youtube", "tiktok", "instagram"), client)
        readers = identity_readers(clients, endpoints, tokens, SystemClock(), settings.instagram_version)
        return await readers[platform].read(account)

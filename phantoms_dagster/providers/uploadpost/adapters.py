"""Checks the key of Upload-Post. The platforms make its publishers, because each platform has fields of its own."""

from __future__ import annotations

from collections.abc import Sequence

from phantoms_dagster.providers.tools import ProviderFinding, ServiceTools
from phantoms_dagster.providers.uploadpost.api import UploadPostApi


async def check(service: ServiceTools) -> Sequence[ProviderFinding]:
    """Check whether Upload-Post accepts the key. Raises ProviderError."""
    await UploadPostApi(service).check_key()
    return [ProviderFinding("uploadpost", "ok", "accepts the key; `phantoms accounts check` asks for each account")]

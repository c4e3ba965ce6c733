"""Checks that the configured model exists and when it will be shut down. Runs at start and in `phantoms doctor`, never per call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import httpx

from phantoms_dagster.domain.errors import ProviderError
from phantoms_dagster.providers import http
from phantoms_dagster.providers.openai import errors as openai_errors
from phantoms_dagster.providers.openai.errors import PROVIDER
from phantoms_dagster.providers.openai.servers import server_at

SETTING = "PHANTOMS_OPENAI_MODEL"
LISTED = 30


@dataclass(frozen=True)
class OfferedModel:
    """A model that a server offers. `shutdown` is the announced day of its end, if any."""

    id: str
    shutdown: date | None = None


@dataclass(frozen=True)
class ModelFinding:
    """The result of a check. `verdict`: ok, note (it works but will be shut down, or it cannot be checked) or wrong."""

    verdict: str
    found: str
    fix: str = ""


async def models_of(client: httpx.AsyncClient, *, base_url: str, api_key: str, sandbox: bool = False) -> list[OfferedModel]:
    """The models that the server lists. Raises ProviderError when the request fails."""
    secret = None if sandbox else api_key
    url = f"{base_url.rstrip('/')}/models"
    response = await http.send(client, "GET", url, provider=PROVIDER, headers=http.bearer(api_key))
    if response.status_code != 200:
        raise openai_errors.refusal(response, secret=secret, server=server_at(base_url, sandbox=sandbox))
    found = http.objects(http.json_object(response, provider=PROVIDER), "data")
    return [OfferedModel(str(item["id"]), _day(item.get("shutdown_date"))) for item in found if item.get("id")]


def judge_model(models: Sequence[OfferedModel], wanted: str, *, today: date, base_url: str, sandbox: bool = False) -> ModelFinding:
    """Check the model `wanted` against the `models` that a server offers."""
    server = server_at(base_url, sandbox=sandbox)
    there = next((model for model in models if model.id in (wanted, f"{wanted}:latest")), None)  # Ollama's names have a tag
    lasting = [model.id for model in models if model.shutdown is None]
    choose = f"set {SETTING} to one of: {_list(lasting or [model.id for model in models])}"
    if there is None:
        if not models:
            return ModelFinding("note", f"{server.name} lists no models, so {wanted} cannot be checked")
        if not server.openai and len(models) == 1:
            # llama.cpp serves the model it was started with, whatever name a request gives.
            return ModelFinding("note", f"{server.name} has only {models[0].id}, not {wanted}", f"set {SETTING} to {models[0].id}")
        return ModelFinding("wrong", f"{server.name} has no model {wanted}", choose)
    if there.shutdown is None:
        return ModelFinding("ok", there.id)
    if there.shutdown <= today:
        return ModelFinding("wrong", f"{wanted} was shut down on {there.shutdown}", choose)
    days = (there.shutdown - today).days
    return ModelFinding("note", f"{wanted} is shut down on {there.shutdown}, in {days} days", choose)


async def check_model(
    client: httpx.AsyncClient, *, base_url: str, api_key: str, model: str, today: date, sandbox: bool = False
) -> ModelFinding:
    """Ask the server for its models and check `model`. A failed request is a finding too and raises nothing."""
    try:
        models = await models_of(client, base_url=base_url, api_key=api_key, sandbox=sandbox)
    except ProviderError as error:
        wrong = error.code in ("invalid_api_key", "401", "403")
        fix = "check PHANTOMS_OPENAI_API_KEY" if wrong else "check PHANTOMS_OPENAI_BASE_URL, and that the server is running"
        return ModelFinding("wrong" if wrong else "note", f"the models cannot be listed: {error}", fix)
    return judge_model(models, model, today=today, base_url=base_url, sandbox=sandbox)


def _day(text: object) -> date | None:
    try:
        return date.fromisoformat(text[:10]) if isinstance(text, str) else None
    except ValueError:
        return None


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more

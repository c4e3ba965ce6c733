"""Makes the adapter of the writer OpenAI, and checks its key and its model."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from phantoms_dagster.domain.errors import Barred, Disconnected, ProviderError, Transient
from phantoms_dagster.providers.openai.models import ModelFinding, check_model, judge_model, models_of
from phantoms_dagster.providers.openai.scripts import READ_BACK_SECONDS, OpenAIScriptWriter
from phantoms_dagster.providers.tools import ProviderFinding, ProviderTools, ServiceTools

SANDBOX_READ_BACK_SECONDS = 1.0


def writer(tools: ProviderTools) -> OpenAIScriptWriter:
    """See `providers.tools`."""
    return OpenAIScriptWriter(
        http_client=tools.client,
        api_key=tools.key,
        base_url=tools.base_url,
        model=tools.setting("model"),
        clock=tools.clock,
        input_usd_per_million=tools.setting("input_usd_per_million"),
        output_usd_per_million=tools.setting("output_usd_per_million"),
        sandbox=tools.sandbox,
        read_back=(SANDBOX_READ_BACK_SECONDS,) if tools.sandbox else READ_BACK_SECONDS,
    )


async def check(service: ServiceTools) -> Sequence[ProviderFinding]:
    """Check whether the server accepts the key and has the configured model. Raises ProviderError."""
    if problem := _address_problem(service):
        return [ProviderFinding("openai", problem.verdict, problem.found, problem.fix)]
    try:
        models = await models_of(service.client, base_url=service.base_url, api_key=service.key())
    except ProviderError as error:
        known = isinstance(error, Transient | Barred | Disconnected)
        if known or error.evidence.status not in (404, 405):
            raise
        found = f"not checked: this server does not list its models ({error.evidence.status})"
        return [ProviderFinding("openai", "note", found, "check PHANTOMS_OPENAI_BASE_URL")]
    model = judge_model(models, service.setting("model"), today=service.today, base_url=service.base_url)
    shown = httpx.URL(service.base_url).copy_with(userinfo=b"")
    return [ProviderFinding("openai", "ok", f"{shown} answers"), _of_model(model)]


async def model(service: ServiceTools) -> ProviderFinding:
    """Check the configured model."""
    if problem := _address_problem(service):
        return _of_model(problem)
    return _of_model(
        await check_model(
            service.client,
            base_url=service.base_url,
            api_key=service.key(),
            model=service.setting("model"),
            today=service.today,
            sandbox=service.sandbox,
        )
    )


def _of_model(finding: ModelFinding) -> ProviderFinding:
    return ProviderFinding("model", finding.verdict, finding.found, finding.fix)


def _address_problem(service: ServiceTools) -> ModelFinding | None:
    if urlsplit(service.base_url).username is None:
        return None
    found = "PHANTOMS_OPENAI_BASE_URL contains a user name or a password, which no call can send"
    return ModelFinding("wrong", found, "remove them; the key goes into PHANTOMS_OPENAI_API_KEY")

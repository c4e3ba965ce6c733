"""The writer OpenAI: settings, pools and prices. They also fit any server with the same chat completions API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from phantoms_dagster.registry.pools import MINUTE, PoolLimits, Rate
from phantoms_dagster.registry.provider_spec import ProviderSpec
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import Setting

PROVIDER = ProviderSpec(
    name="openai",
    title="OpenAI",
    adapters="phantoms_dagster.providers.openai.adapters",
    sandbox="phantoms_dagster.sandbox.openai.routes",
    sandbox_path="/openai/v1",
    # OpenAI publishes limits per account tier and in x-ratelimit-* headers only; 500 a minute is the lowest paid tier.
    pools={
        "script": PoolLimits(slots=64, rates=(Rate(500, MINUTE, 50),)),
        "voiceover": PoolLimits(slots=32, rates=(Rate(500, MINUTE, 50),)),
    },
    routes=(Route(None, r"/audio/", "voiceover"), Route(None, r"", "script")),
    # A model sends nothing until its whole answer is written. No other service does that.
    call_seconds="seconds",
    settings={
        "api_key": Setting(SecretStr | None, None, "Key for scripts (OpenAI or any compatible server)."),
        "base_url": Setting(str, "https://api.openai.com/v1", "Base URL of the chat completions API."),
        "model": Setting(str, "gpt-6-luna", "Model that writes the scripts. `phantoms doctor` lists the models of the server."),
        "input_usd_per_million": Setting(
            Annotated[float, Field(ge=0)],
            0.10,
            "Price of a million input tokens, for the cost column. Default: gpt-6-luna's price in November 2026.",
        ),
        "output_usd_per_million": Setting(
            Annotated[float, Field(ge=0)],
            0.50,
            "Price of a million output tokens, for the cost column. Default: gpt-6-luna's price in November 2026.",
        ),
        "seconds": Setting(
            Annotated[float, Field(gt=0)],
            600.0,
            "Longest time that a call of the model may take. A model may send its first byte as late as its last.",
        ),
    },
)

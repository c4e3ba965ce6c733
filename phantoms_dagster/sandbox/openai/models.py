"""The stand-in's models: those of the API in November 2026, with their announced shutdown dates.

Names and dates are the vendor's own (the SDK's list of models and its deprecations). After its date a model does not exist, as with
the API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from phantoms_dagster.sandbox.openai.gate import OpenAiApiError

_REASONING = re.compile(r"^(?:gpt-[56]|o\d)")
_CREATED = 1_760_000_000


@dataclass(frozen=True)
class SandboxModel:
    """A model. `context` and `output` are in tokens; `shutdown` is the announced date of its end; `kind` is what it generates."""

    id: str
    context: int = 1_050_000
    output: int = 128_000
    shutdown: str | None = None
    kind: str = "chat"

    @property
    def reasons(self) -> bool:
        """Whether it is a reasoning model, which accepts fewer parameters."""
        return _REASONING.match(self.id) is not None

    def gone(self, now: float) -> bool:
        """Whether it was shut down before `now`, seconds since the epoch."""
        return self.shutdown is not None and datetime.fromtimestamp(now, UTC).date().isoformat() >= self.shutdown

    def described(self) -> dict[str, Any]:
        """The model as the API shows it."""
        return {
            "id": self.id,
            "object": "model",
            "created": _CREATED,
            "owned_by": "phantoms-sandbox",
            "shutdown_date": self.shutdown,
        }


def _models() -> dict[str, SandboxModel]:
    current = (
        "gpt-6.2-astra", "gpt-6.2-sol", "gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-astra", "gpt-6-sol", "gpt-6-luna",
        "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna", "gpt-5.5", "gpt-5.4",
    )  # fmt: skip
    models = [
        *(SandboxModel(name) for name in current),
        *(SandboxModel(name, context=400_000) for name in ("gpt-5.4-mini", "gpt-5.2")),
        *(SandboxModel(name, context=400_000, shutdown="2027-04-01") for name in ("gpt-5.4-nano", "gpt-5.1")),
        *(SandboxModel(name, context=400_000, shutdown="2026-12-11") for name in ("gpt-5", "gpt-5-mini", "gpt-5-nano")),
        SandboxModel("o3", context=200_000, output=100_000, shutdown="2026-12-11"),
        *(SandboxModel(name, context=1_047_576, output=32_768, shutdown="2027-01-14") for name in ("gpt-4.1", "gpt-4.1-mini")),
        *(SandboxModel(name, context=128_000, output=16_384, shutdown="2027-01-14") for name in ("gpt-4o", "gpt-4o-mini")),
        *(
            SandboxModel(name, shutdown="2026-10-23")
            for name in ("gpt-4.1-nano", "gpt-4-turbo", "gpt-4", "gpt-3.5-turbo", "o1", "o4-mini")
        ),
        *(SandboxModel(name, shutdown="2027-01-06", kind="speech") for name in ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")),
        *(SandboxModel(name, kind="moderation") for name in ("omni-moderation-latest", "omni-moderation-2024-09-26")),
    ]
    return {model.id: model for model in models}


MODELS = _models()


def offered(now: float) -> list[SandboxModel]:
    """The models that exist at `now`."""
    return [model for model in MODELS.values() if not model.gone(now)]


def model_named(name: object, now: float, *, kind: str = "chat") -> SandboxModel:
    """The model of that name. Raises OpenAiApiError (404) when there is none or it was shut down."""
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        raise OpenAiApiError(404, f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found")
    if model.gone(now):
        raise OpenAiApiError(404, f"The model `{name}` has been deprecated and was shut down.", code="model_not_found")
    if model.kind != kind:
        raise OpenAiApiError(404, f"This is not a {kind} model and thus not supported by this endpoint: `{name}`.", param="model")
    return model

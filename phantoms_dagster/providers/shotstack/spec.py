"""The renderer Shotstack: settings, pools and price."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from phantoms_dagster.registry.pools import MINUTE, PoolLimits, Rate
from phantoms_dagster.registry.provider_spec import ProviderSpec
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import Setting

PROVIDER = ProviderSpec(
    name="shotstack",
    title="Shotstack",
    adapters="phantoms_dagster.providers.shotstack.adapters",
    sandbox="phantoms_dagster.sandbox.shotstack.routes",
    sandbox_path="/shotstack",
    events="phantoms_dagster.providers.shotstack.events",
    renew="set PHANTOMS_SHOTSTACK_STAGE to the key's stage",
    # 300 Edit calls in a fixed 60 s window per key, submits and polls alike (150 on the trial stage; Serve 600).
    # shotstack.io/docs/guide/architecting-an-application/limitations
    pools={
        "render": PoolLimits(slots=32, rates=(Rate(300, MINUTE, 30),)),
        "render_serve": PoolLimits(slots=16, rates=(Rate(600, MINUTE, 60),)),
        "render_ingest": PoolLimits(slots=16, rates=(Rate(300, MINUTE, 30),)),
        # Files go to and come from object storage, where only our bandwidth is a limit.
        "transfer": PoolLimits(slots=16, lease_seconds=60),
    },
    routes=(
        Route(None, r"/edit/", "render"),
        Route(None, r"/serve/", "render_serve"),
        Route(None, r"/ingest/", "render_ingest"),
        # Signed uploads and finished files are in object storage, which may fail while the render API works.
        Route(None, r"", "transfer", integration="shotstack_files"),
    ),
    paces={"processing_seconds": (0.2, (15.0, 60.0)), "ingest_seconds": (0.05, (1.0, 5.0))},
    usd_per_minute="usd_per_minute",
    settings={
        "api_key": Setting(SecretStr | None, None, "Key of the render API."),
        "base_url": Setting(str, "https://api.shotstack.io", "Host of the render API."),
        "stage": Setting(Literal["v1", "stage"], "v1", "v1: paid production; stage: watermarked trial."),
        "usd_per_minute": Setting(Annotated[float, Field(ge=0)], 0.40, "Price of a rendered minute, for the cost column."),
    },
)

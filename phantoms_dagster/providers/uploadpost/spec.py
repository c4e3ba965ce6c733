"""The gateway Upload-Post: settings and pools."""

from __future__ import annotations

from pydantic import SecretStr

from phantoms_dagster.registry.pools import MINUTE, PoolLimits, Rate
from phantoms_dagster.registry.provider_spec import ProviderSpec
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import Setting

PROVIDER = ProviderSpec(
    name="uploadpost",
    title="Upload-Post",
    adapters="phantoms_dagster.providers.uploadpost.adapters",
    sandbox="phantoms_dagster.sandbox.uploadpost.routes",
    sandbox_path="/uploadpost/api",
    events="phantoms_dagster.providers.uploadpost.events",
    renew="connect the account again at Upload-Post",
    # Posts themselves go through the pool of their platform, because its daily limit counts them whatever route they take. Reads
    # have no documented limit: a poll of each post every ten seconds is what the documentation asks for. Only live
    # analytics have one: 100 calls within five minutes, of all accounts together.
    pools={
        "uploadpost": PoolLimits(slots=16, rates=(Rate(300, MINUTE, 60),)),
        "metrics_uploadpost": PoolLimits(slots=4, rates=(Rate(100, 5 * MINUTE, 20),)),
    },
    routes=(
        Route("GET", r"/uploadposts/post-analytics", "metrics_uploadpost", integration="uploadpost_metrics"),
        Route(None, r"", "uploadpost"),
    ),
    settings={
        "api_key": Setting(SecretStr | None, None, "Key of Upload-Post, for channels whose route onto a platform is `gateway`."),
        "events_secret": Setting(
            SecretStr | None, None, "End of the address to which Upload-Post sends events, because it does not sign them."
        ),
        "base_url": Setting(str, "https://api.upload-post.com/api", "Address of Upload-Post's API."),
    },
    paces={"processing_seconds": (0.2, (10.0, 60.0))},
)

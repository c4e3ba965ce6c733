"""The arguments for creating a platform's adapters.

A platform's module `adapters` has the function `publisher(tools)` and, if the platform supports them, `metrics(tools)`,
`identity(tools)`, `grants(tools)`, `oauth(tools)`, `late_ids(tools)`, `extras(tools)`, `post_reader(tools)`,
`post_remover(tools)` and `preflight(tools)`. Each returns an implementation of its port and sends nothing. `gateway(tools)` makes
the publisher for posts whose route is `GATEWAY`; it is also an `IdentityReader`. `gateway_metrics(tools)`,
`gateway_late_ids(tools)` and `gateway_post_reader(tools)` read what became of such posts.
`route_facts(missing, route, gateway=...)` says which routes an account can use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from phantoms_dagster.domain.ports import Clock, Tokens
from phantoms_dagster.providers.tools import ServiceTools


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Everything that an adapter may use.

    `client` is behind the shared breakers and pools. `sandbox`: a stand-in answers at `base_url`. `setting` returns one of the
    platform's settings by its short name. `secret` returns the current value of a secret, None in the sandbox. `max_wait`: the
    longest wait within a call, in seconds. `folder`: the data directory. `service` returns how to reach a provider.
    `route`: the route of the account that the adapters are for (see `PostTerms.way`); None if it is not known.
    """

    client: httpx.AsyncClient
    base_url: str
    tokens: Tokens
    clock: Clock
    sandbox: bool
    max_wait: float
    setting: Callable[[str], Any]
    secret: Callable[[str], str | None]
    folder: Path
    service: Callable[[str], ServiceTools]
    route: str | None = None

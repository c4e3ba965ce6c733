"""The adapters of one account for commands: without Redis, since it may not be running, and with any source of its token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from phantoms_dagster.domain.grants import STORED
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.production.token_refresh import TokenRefresher
from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits
from phantoms_dagster.resilience.transport import Deadlines, build_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.platforms import Toolbox, oauth_adapters
from phantoms_dagster.wiring.token_keys import vault
from phantoms_dagster.wiring.tokens import AccountTokens
from phantoms_dagster.wiring.up_lock import nothing_runs

SECONDS = 8.0


class GivenToken:
    """Implements `ports.Tokens` with a token that was received a moment ago and is not stored yet."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, platform: Platform, account: str) -> str:
        """See the port."""
        del platform, account
        return self._token

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        """See the port."""
        del platform, account, refused
        return None


@asynccontextmanager
async def account_tools(
    settings: Settings,
    endpoints: Endpoints,
    platform: Platform,
    account: str,
    place: str | None,
    *,
    tokens: Tokens | None = None,
    route: str | None = None,
) -> AsyncIterator[Toolbox]:
    """The adapters of the platform. `place`: where the account's token is. `tokens`: use this source of tokens instead.

    `route`: the route of the account's posts, if it is known.
    """
    deadlines = Deadlines(read=SECONDS, total=SECONDS)
    clock = SystemClock()

    async def places() -> dict[tuple[str, str], str]:
        return {(str(platform), account): place} if place else {}

    async with AsyncExitStack() as stack:
        names = [str(platform), *([platform.spec.gateway] if platform.spec.gateway is not None else [])]
        clients = {
            name: await stack.enter_async_context(
                build_client(limits=UnguardedLimits(), scope=CallScope(name), deadlines=deadlines)
            )
            for name in names
        }
        used = tokens or AccountTokens(endpoints, places, lambda: refresher)
        toolbox = Toolbox(settings, endpoints, clients, used, clock, route=route)
        if place == STORED and tokens is None:
            if settings.database.url is None:
                raise nothing_runs(settings, "database")
            # These import the asynchronous half of SQLAlchemy, and the cryptography.
            from phantoms_dagster.store.engine import async_engine  # noqa: PLC0415
            from phantoms_dagster.store.grants import PostgresGrants  # noqa: PLC0415

            database = async_engine(settings.database.url.get_secret_value(), pool_size=2)
            stack.push_async_callback(database.dispose)
            refresher = TokenRefresher(store=PostgresGrants(database, vault(settings)), oauth=oauth_adapters(toolbox), clock=clock)
            stack.push_async_callback(refresher.finish)
        yield toolbox

"""Checks for `phantoms doctor` that each real service accepts our key. Every call is a read that costs nothing.

A refusal, an unreachable service and a service with problems of its own are distinguished, because each needs another next step.
Nothing is reported as ok without a check.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass

import httpx

from phantoms_dagster.domain.accounts import connect_command, short_subject
from phantoms_dagster.domain.errors import Barred, Disconnected, InvalidInput, PhantomsError, ProviderError, Transient
from phantoms_dagster.domain.grants import STORED, AppRefused
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.providers.http import unreachable
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits
from phantoms_dagster.resilience.transport import Deadlines, build_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.account_routes import account_routes
from phantoms_dagster.wiring.account_tools import SECONDS
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints, variable_of_key
from phantoms_dagster.wiring.platforms import scopes_of
from phantoms_dagster.wiring.providers import adapters, service_tools
from phantoms_dagster.wiring.token_check import check_token

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")


@dataclass(frozen=True)
class Finding:
    """The result of one check. `verdict`: ok, note or wrong. `fix`: what to do about it."""

    check: str
    verdict: str
    found: str
    fix: str = ""


def ask_provider(settings: Settings, endpoints: Endpoints, provider: str) -> list[Finding]:
    """Run the provider's own check of its key. The provider must have one (see `has`)."""
    spec, base_url = PROVIDERS[provider], f"PHANTOMS_{provider.upper()}_BASE_URL"

    async def ask() -> list[Finding]:
        async with _client(provider) as client:
            found = await adapters(provider).check(service_tools(settings, endpoints, provider, client, SystemClock()))
        return [Finding(one.check, one.verdict, one.found, one.fix) for one in found]

    key = variable_of_key(provider)
    renew = [f"renew the key in {key}" if key else f"check {base_url}", spec.renew]
    return _asked(provider, ", or ".join(part for part in renew if part), ask())


def ask_account(
    settings: Settings,
    endpoints: Endpoints,
    platform: Platform,
    account: str,
    place: str | None,
    *,
    route: str = "",
    own: bool = False,
) -> list[Finding]:
    """Check who owns the account's token, and whether it has the permissions for posting and for reading metrics.

    If the platform has several routes, also say which of them are possible. `route`: the one that the account uses. `own`: ask the
    platform itself, although a gateway publishes for the account.
    """
    check = f"{platform}:{account}"
    gateway = platform.spec.gateway if route == GATEWAY and not own else None
    if _replaced(endpoints, gateway or str(platform)):
        title = PROVIDERS[gateway].title if gateway else platform.title
        replaced = Finding(check, "note", f"not checked: the sandbox replaces {title}")
        return [replaced, *route_findings(endpoints, platform, check, route)]

    async def ask() -> list[Finding]:
        facts = await check_token(settings, endpoints, platform, account, place, route=route, own=own)
        routes = [] if own or facts.missing is None else route_findings(endpoints, platform, check, route, facts.missing)
        owner = f"{facts.owner.label} ({short_subject(facts.owner.subject)})" if facts.owner else "the token is accepted"
        if facts.missing is None:
            found = f"{owner}; its scopes could not be checked: this host does not report them"
            return [Finding(check, "note", found, "if posts are refused, compare its scopes with docs/accounts.md"), *routes]
        if facts.missing:
            lacks = ", ".join(f"{scope.name} ({scope.purpose})" for scope in facts.missing)
            fix = "connect the account again and grant these scopes"
            return [Finding(check, "wrong", f"{owner} lacks scopes: {lacks}", fix), *routes]
        granted = "it publishes for this account" if gateway else "all scopes granted"
        return [Finding(check, "ok", f"{owner}, {granted}"), *routes]

    if gateway is not None:
        return _asked(check, f"renew the key in {variable_of_key(gateway)}, or {PROVIDERS[gateway].renew}", ask(), setting=gateway)
    if place == STORED:
        return _asked(check, f"run `{connect_command(platform, account)}`", ask(), setting=str(platform))
    where = place or f"PHANTOMS_{platform.upper()}_TOKEN"
    scopes = ", ".join(scope.name for scope in scopes_of(platform))
    with_scopes = f", with the scopes {scopes}" if scopes else ""
    return _asked(check, f"renew the token in {where}{with_scopes}", ask(), setting=str(platform))


def route_findings(
    endpoints: Endpoints, platform: Platform, check: str, route: str, missing: Iterable[Scope] = ()
) -> list[Finding]:
    """Which routes the account can use, and why. Empty for a platform with one route. `missing`: what its token lacks."""
    told = account_routes(endpoints, platform, route, [scope.name for scope in missing])
    if not told:
        return []
    chosen, *rest = told
    verdict = {"yes": "ok", "perhaps": "note", "no": "wrong"}[chosen.possible]
    others = [f"{fact.title}: {fact.possible}, {fact.why}" for fact in rest]
    found = f"posts go by {chosen.title}: {chosen.why}. Other routes: {'; '.join(others)}"
    return [Finding(f"{check} route", verdict, found, chosen.fix)]


def _replaced(endpoints: Endpoints, integration: str) -> bool:
    try:
        return endpoints.sandboxed(integration)
    except InvalidInput:
        return False  # the sandbox is off, so the check itself says that there is no key


def _client(name: str) -> httpx.AsyncClient:
    # Without the shared limits: Redis may not be running, and this is one small call.
    return build_client(limits=UnguardedLimits(), scope=CallScope(name), deadlines=Deadlines(read=SECONDS, total=SECONDS))


def _asked(check: str, renew: str, ask: Awaitable[list[Finding]], *, setting: str | None = None) -> list[Finding]:
    """Run a check and turn errors into findings with a next step. `renew`: the next step when the key is refused."""

    async def bounded() -> list[Finding]:
        async with asyncio.timeout(SECONDS):
            return await ask

    network = f"check the network and PHANTOMS_{(setting or check).upper()}_BASE_URL"
    if any(os.environ.get(name) for name in PROXIES):
        network += "; the proxy set in the environment is not used"
    try:
        return asyncio.run(bounded())
    except TimeoutError:
        return [Finding(check, "wrong", f"cannot be reached: no answer within {SECONDS:g} s", network)]
    except ProviderError as error:
        return [_refused(check, error, renew=renew, network=network)]
    except PhantomsError as error:
        return [Finding(check, "wrong", str(error), "correct the setting")]


def _refused(check: str, error: ProviderError, *, renew: str, network: str) -> Finding:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    status = error.evidence.status
    if isinstance(error, Transient) and (status is None or error.code == "malformed" or status == 407):
        return Finding(check, "wrong", f"cannot be reached: {unreachable(error)}", network)
    if status == 407:
        return Finding(check, "wrong", "cannot be reached: a proxy on the way requires a login (407)", network)
    if isinstance(error, AppRefused):
        fix = "correct it wherever Phantoms runs, and start it again: the account stays connected"
        return Finding(check, "wrong", said, fix)
    if isinstance(error, Transient):
        return Finding(check, "note", f"the check was not possible: {said}", "the service has problems or is busy: try again later")
    if error.code == "reconnect":
        return Finding(check, "wrong", said, renew)
    if error.code == "not_connected":
        return Finding(check, "wrong", said, "docs/accounts.md has all ways to give an account its token")
    if isinstance(error, Barred):
        return Finding(check, "wrong", said, "connect the account again with all scopes of docs/accounts.md")
    if isinstance(error, Disconnected) or status in (401, 403):
        return Finding(check, "wrong", said, renew)
    return Finding(check, "wrong", said, "the message says what is wrong; docs/accounts.md says what an account needs")

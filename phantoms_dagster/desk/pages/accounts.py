"""Accounts: whose they are, what state they are in, what each can do; connecting, checking and disconnecting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from phantoms_dagster.desk.render import flash_message, page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.accounts import Account, Standing, as_used, standing
from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError, ProviderError
from phantoms_dagster.domain.grants import STORED
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.preflight import worst
from phantoms_dagster.platforms.route_facts import RouteFact
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.audit import AuditEntry
from phantoms_dagster.store.preflight import CheckedAccount, Preflights
from phantoms_dagster.store.users import digest
from phantoms_dagster.wiring.endpoints import gateway_of, routes_of

PAGE = "/accounts"
# What an account can do, by the adapter that does it.
ABILITIES = {
    "publisher": "posts",
    "metrics": "reads numbers",
    "post_reader": "notices what happened to posts",
    "post_remover": "deletes posts",
}


@dataclass(frozen=True)
class ShownAccount:
    """An account with its state, what it can do, and its last check. `sandboxed`: it has no token, so the sandbox answers.

    `routes`: the routes onto the platform, the chosen one first; empty if there is only one.
    """

    account: Account
    standing: Standing
    abilities: tuple[str, ...]
    channels: tuple[str, ...]
    checked: CheckedAccount | None
    sandboxed: bool
    routes: Sequence[RouteFact]

    @property
    def stored(self) -> bool:
        """Whether a person connected it."""
        return self.account.token_source == STORED


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get(PAGE, include_in_schema=False)(accounts)
    app.post(f"{PAGE}/connect", include_in_schema=False)(connect)
    app.get("/callback", include_in_schema=False)(come_back)
    app.get("/callback/", include_in_schema=False)(come_back)  # Meta adds a slash to what was registered
    app.post(f"{PAGE}/check", include_in_schema=False)(check)
    app.get(f"{PAGE}/disconnect", include_in_schema=False)(ask_disconnect)
    app.post(f"{PAGE}/disconnect", include_in_schema=False)(disconnect)


def accounts(visit: CurrentVisit) -> Response:
    """Show all accounts, and the forms that connect one."""
    from phantoms_dagster.desk import connecting  # noqa: PLC0415 - it imports the cryptography

    return page(
        visit,
        "accounts.html",
        shown=_shown(visit),
        platforms=[platform for platform in Platform if platform.spec.oauth],
        address=connecting.address(visit),
    )


def connect(visit: CurrentVisit, form: Form) -> Response:
    """Begin an attempt, and lead to the platform's page."""
    from phantoms_dagster.desk import connecting as kept  # noqa: PLC0415
    from phantoms_dagster.wiring.connecting import Connecting  # noqa: PLC0415 - it imports the platforms' adapters

    platform = _platform(field(form, "platform"))
    connecting = Connecting(visit.desk.services, platform, visible_text(form, "name", most=100).strip() or None)
    redirect = kept.redirect_of(visit, platform, connecting.name, connecting.redirect_uri)
    if redirect.uri is None:
        raise InvalidInput(redirect.why)
    attempt = connecting.begin(redirect.uri)
    # A page, not a redirect: the policy `form-action 'self'` forbids redirects of a form to another site.
    url = attempt.consent.url
    response = page(visit, "connect.html", platform=platform, name=connecting.name, url=url, redirect_uri=redirect.uri)
    secure = visit.request.url.scheme == "https"
    value = kept.sealed(visit, platform, connecting.name, attempt)
    response.set_cookie(kept.COOKIE, value, max_age=kept.SECONDS, path=kept.PATH, httponly=True, samesite="lax", secure=secure)
    return response


def come_back(visit: CurrentVisit) -> Response:
    """Take the platform's answer, which works once and only in the session that began the attempt, and store the tokens."""
    from phantoms_dagster.desk import connecting as kept  # noqa: PLC0415
    from phantoms_dagster.wiring.connecting import Connecting  # noqa: PLC0415

    answer = {name: value[:4_000] for name, value in visit.request.query_params.items()}
    response = RedirectResponse(PAGE, 303)
    response.delete_cookie(kept.COOKIE, path=kept.PATH)
    try:
        platform, name, attempt = kept.unsealed(visit)
        connecting = Connecting(visit.desk.services, platform, name)
        code = connecting.code_in(attempt, answer)
        if not visit.desk.users.spend_state(digest(attempt.state)):
            raise InvalidInput("that answer was used already: begin again")
        done = connecting.finish(attempt, code)
    except (InvalidInput, ProviderError) as error:
        flash_message(visit, response, f"Nothing was connected: {error}", "bad")
        return response
    owner = {"owner": done.owner.label, "subject": done.owner.subject}
    visit.desk.audit.write(AuditEntry(visit.actor, "connect account", f"{platform}:{name}", None, owner))
    said = f"{platform.title} account {name} is connected: {done.owner.label}.{f' {done.warning}' if done.warning else ''}"
    flash_message(visit, response, said + _first_check(visit, platform, name), "info")
    return response


def _first_check(visit: Visit, platform: Platform, name: str) -> str:
    """Check the account that was just connected, so that what would stop its first post is said now. Empty if nothing is wrong."""
    from phantoms_dagster.wiring.preflight import check_account_now  # noqa: PLC0415 - it imports every provider

    try:
        checks = check_account_now(visit.desk.services, platform, name)
    except PhantomsError as error:
        return f" It could not be checked: {error}."
    return " Something is wrong with it, see below." if worst(checks) == "wrong" else ""


def check(visit: CurrentVisit, form: Form) -> Response:
    """Ask the platform about the account now."""
    from phantoms_dagster.wiring.preflight import check_account_now  # noqa: PLC0415 - it imports every provider

    account = _account(visit, field(form, "account"))
    checks = check_account_now(visit.desk.services, account.platform, account.name)
    words = {"wrong": "something is wrong, see below", "unchecked": "the platform could not be asked"}
    said = words.get(worst(checks), "nothing is wrong")
    return redirect_to(visit, PAGE, f"Checked {account.platform}:{account.name}: {said}.")


def ask_disconnect(visit: CurrentVisit, account: str = "") -> Response:
    """Show what would be disconnected, and ask."""
    return page(visit, "disconnect.html", account=_account(visit, account))


def disconnect(visit: CurrentVisit, form: Form) -> Response:
    """End the connection at the platform, and delete the tokens."""
    from phantoms_dagster.wiring.connecting import disconnect as end  # noqa: PLC0415 - it imports the platforms' adapters

    account = _account(visit, field(form, "account"))
    why = end(visit.desk.services, account.platform, account.name)
    key = f"{account.platform}:{account.name}"
    before = {"owner": account.label, "subject": account.subject}
    visit.desk.audit.write(AuditEntry(visit.actor, "disconnect account", key, before, {"platform was told": not why}))
    return redirect_to(visit, PAGE, f"Disconnected {key}. Its tokens are deleted{f' ({why})' if why else ''}.")


def _shown(visit: Visit) -> list[ShownAccount]:
    from phantoms_dagster.wiring.account_routes import account_routes  # noqa: PLC0415 - these import the platforms' adapters
    from phantoms_dagster.wiring.platforms import can  # noqa: PLC0415

    endpoints = visit.desk.services.endpoints
    now, checked = datetime.now(UTC), Preflights(visit.desk.reading, next_opening).accounts()
    last = {(one.platform, one.account): one for one in checked}
    channels = visit.desk.calendar.channels().values()
    ways = routes_of(channels)
    gateways = {key: gateway_of(key[0]) for key, way in ways.items() if way == GATEWAY}
    return [
        ShownAccount(
            account,
            standing(account, now, has_token=_has_token(visit, account)),
            tuple(word for what, word in ABILITIES.items() if can(account.platform, what)),
            tuple(channel.title for channel in channels if channel.accounts.get(account.platform) == account.name),
            last.get((account.platform, account.name)),
            _sandboxed(visit, account),
            account_routes(endpoints, account.platform, ways.get((account.platform, account.name), "")),
        )
        for account in as_used(Accounts(visit.desk.reading).all(), gateways)
    ]


def _sandboxed(visit: Visit, account: Account) -> bool:
    try:
        return account.token_source is None and visit.desk.services.endpoints.sandboxed(account.gateway or str(account.platform))
    except InvalidInput:
        return False  # the sandbox is off, and the account has no token


def _has_token(visit: Visit, account: Account) -> bool:
    if account.token_source is not None or not account.platform.spec.remote or _sandboxed(visit, account):
        return True
    return visit.desk.services.endpoints.secret(account.gateway or str(account.platform)) is not None


def _account(visit: Visit, key: str) -> Account:
    found = next((one for one in Accounts(visit.desk.reading).all() if one.key == key), None)
    if found is None:
        raise NotFound(f"There is no account {key}.")
    return found


def _platform(name: str) -> Platform:
    if name not in Platform:
        raise NotFound(f"There is no platform {name}.")
    return Platform(name)

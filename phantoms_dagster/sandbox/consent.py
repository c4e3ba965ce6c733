"""The stand-ins' authorization endpoints: they check an app's request, ask the person on a page, and send the browser back.

A person chooses the account on the page, and unticks scopes where the platform allows that. `?auto=accept` or `?auto=deny` in the
address answers at once, for the account in `account` or `login_hint` (`main` without either). The setting `<platform>.consent` does
so for all requests: {"auto": "accept", "account": "main", "untick": [scopes]}.
"""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox, page
from phantoms_dagster.sandbox.grants import Code, Grants

ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Client:
    """An app that is registered at the platform."""

    id: str
    secret: str
    redirect_uris: tuple[str, ...]


class AuthorizationError(Exception):
    """An error that the app receives in the redirect."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass(frozen=True)
class Authorization:
    """One platform's rules for its authorization endpoint.

    `scopes` reads the asked scopes, and `challenge` the PKCE challenge and its method; both raise AuthorizationError. `redirects`
    decides whether a registered address covers the given one. `ending` is appended to the address that the browser is sent to.
    `asks_offline`: only an app that asks for `offline` access gets a refresh token, at the first consent or a forced one.
    `lists_scopes`: the redirect names the granted scopes.
    """

    platform: str
    title: str
    id_parameter: str
    default_client: Client
    code_seconds: float
    scopes: Callable[[Mapping[str, str]], tuple[str, ...]]
    challenge: Callable[[Mapping[str, str]], tuple[str, str]]
    redirects: Callable[[str, str], bool]
    denied: Mapping[str, str]
    granular: bool = False
    code_ending: str = ""
    ending: str = ""
    asks_offline: bool = False
    lists_scopes: bool = False


def client_of(sandbox: Sandbox, rules: Authorization, client_id: str) -> Client | None:
    """The registered app with that id."""
    registered = sandbox.setting(f"{rules.platform}.clients", None)
    if registered is None:
        return rules.default_client if client_id == rules.default_client.id else None
    found = registered.get(client_id)
    return None if found is None else Client(client_id, str(found["secret"]), tuple(found.get("redirect_uris", ())))


def loopback(uri: str, hosts: tuple[str, ...]) -> bool:
    """Whether it is an address of this machine with a port, and without query and fragment."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme == "http" and parts.hostname in hosts and port is not None and not parts.query and not parts.fragment


def authorize(sandbox: Sandbox, rules: Authorization, path: str, name: str) -> list[web.RouteDef]:
    """The page (GET) and its form (POST)."""
    endpoint = _AuthorizationEndpoint(sandbox, rules)
    return [web.get(path, endpoint.ask, name=f"{name}.authorize"), web.post(path, endpoint.decide, name=f"{name}.decide")]


class _AuthorizationEndpoint:
    def __init__(self, sandbox: Sandbox, rules: Authorization) -> None:
        self.sandbox = sandbox
        self.rules = rules
        self.grants = Grants.of(sandbox)

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Show the page, or answer at once."""
        chosen: dict[str, Any] = {"account": request.query.get("login_hint", "main")}
        chosen |= self.sandbox.setting(f"{self.rules.platform}.consent", None) or {}
        chosen |= {key: request.query[key] for key in ("auto", "account") if key in request.query}
        return self._answer(request, chosen)

    async def decide(self, request: web.Request) -> web.StreamResponse:
        """Take the form's answer."""
        form = await request.post()
        chosen: dict[str, Any] = {"auto": form.get("decision", "deny"), "account": form.get("account", "")}
        if self.rules.granular:
            chosen["ticked"] = {str(scope) for scope in form.getall("scope", [])}
        return self._answer(request, chosen)

    def _answer(self, request: web.Request, chosen: Mapping[str, Any]) -> web.StreamResponse:
        query, rules = request.query, self.rules
        client = client_of(self.sandbox, rules, query.get(rules.id_parameter, ""))
        if client is None:
            return page("Error: invalid_client", f"<p>{rules.title} knows no app with this {rules.id_parameter}.</p>", status=400)
        if not any(rules.redirects(registered, query.get("redirect_uri", "")) for registered in client.redirect_uris):
            return page("Error: redirect_uri_mismatch", "<p>This redirect_uri is not registered for the app.</p>", status=400)
        try:
            if query.get("response_type") != "code":
                raise AuthorizationError("unsupported_response_type", "response_type must be code")
            asked, challenge = rules.scopes(query), rules.challenge(query)
        except AuthorizationError as error:
            return self._back(query, {"error": error.error, "error_description": error.description})
        account = str(chosen["account"])
        if chosen.get("auto") not in ("accept", "deny"):
            return self._consent_page(request, asked, account)
        if not ACCOUNT.fullmatch(account):
            return page("Error", "<p>An account's name has letters, digits, dots, dashes and underscores.</p>", status=400)
        ticked = chosen.get("ticked", set(asked) - set(chosen.get("untick", ())))
        granted = tuple(scope for scope in asked if scope in ticked or not rules.granular)
        if chosen["auto"] == "deny" or not granted:
            return self._back(query, rules.denied)
        listed = {"scopes": ",".join(granted)} if rules.lists_scopes else {}
        return self._back(query, {"code": self._code(query, client, account, granted, challenge), **listed})

    def _code(
        self, query: Mapping[str, str], client: Client, account: str, granted: tuple[str, ...], challenge: tuple[str, str]
    ) -> str:
        rules = self.rules
        live = list(self.grants.live(rules.platform, client.id, account))
        scopes = granted
        if query.get("include_granted_scopes") == "true":
            scopes = tuple(dict.fromkeys([*granted, *sorted({scope for grant in live for scope in grant.scopes})]))
        asked_offline = query.get("access_type") == "offline" and (not live or "consent" in query.get("prompt", "").split())
        code = Code(
            key="",
            platform=rules.platform,
            client=client.id,
            account=account,
            redirect_uri=query["redirect_uri"],
            scopes=scopes,
            challenge=challenge[0],
            method=challenge[1],
            expires_at=self.sandbox.now() + float(self.sandbox.setting(f"{rules.platform}.code_seconds", rules.code_seconds)),
            offline=asked_offline or not rules.asks_offline,
        )
        return self.grants.new_code(secrets.token_urlsafe(32) + rules.code_ending, code)

    def _back(self, query: Mapping[str, str], params: Mapping[str, str]) -> web.Response:
        uri = query["redirect_uri"]
        state = {"state": query["state"]} if "state" in query else {}
        joint = "&" if "?" in uri else "?"
        place = f"{uri}{joint}{urlencode({**params, **state})}{self.rules.ending if 'code' in params else ''}"
        return web.Response(status=302, headers={"Location": place, "Cache-Control": "no-store"})

    def _consent_page(self, request: web.Request, asked: tuple[str, ...], account: str) -> web.Response:
        boxes = "".join(
            f'<p><label><input type="checkbox" name="scope" value="{html.escape(scope)}" checked> {html.escape(scope)}</label></p>'
            if self.rules.granular
            else f"<p>{html.escape(scope)}</p>"
            for scope in asked
        )
        form = (
            f'<form method="post" action="{html.escape(request.path_qs)}">'
            f'<p><label>Account <input name="account" value="{html.escape(account)}"></label></p>{boxes}'
            '<button name="decision" value="accept">Allow</button> <button name="decision" value="deny">Deny</button></form>'
        )
        return page(f"{self.rules.title} (sandbox): an app asks for access", form)

"""What the desk keeps of an attempt to connect an account, and where the platform may send the browser back to.

An attempt is in an encrypted cookie of the browser that began it. It counts once, for ten minutes, in the session that began it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from phantoms_dagster.desk.visits import Visit
from phantoms_dagster.domain.accounts import connect_command
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.grants import Consent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.vault import WrongKey
from phantoms_dagster.wiring.connecting import Attempt, at_port
from phantoms_dagster.wiring.token_keys import vault

COOKIE, PATH = "phantoms_connect", "/callback"
SECONDS = 600
_HERE = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class DeskRedirect:
    """Where the platform sends the browser back to. `uri` is None when the desk cannot take it; then `why` says what to do."""

    uri: str | None
    why: str = ""


def address(visit: Visit) -> str:
    """The desk's own redirect URI: at PHANTOMS_DESK_URL, else at the address of this request."""
    return (visit.desk.settings.desk.url or str(visit.request.base_url)).rstrip("/") + PATH


def redirect_of(visit: Visit, platform: Platform, name: str, registered: str | None) -> DeskRedirect:
    """Whether the desk can take the platform's redirect. `registered`: the redirect URI in the settings."""
    here, command = address(visit), connect_command(platform, name)
    variable = f"PHANTOMS_{platform.upper()}_REDIRECT_URI"
    if registered is not None:
        registered = at_port(registered, urlsplit(here).port or 80)
    if registered is not None and registered.rstrip("/") == here:
        return DeskRedirect(registered)
    if registered is not None:
        why = f"{variable} is {registered}, and not the desk's {here}. Register {here} for the app and set {variable} to it"
        return DeskRedirect(None, f"{why}, or run `{command} --paste`.")
    parts = urlsplit(here)
    if parts.scheme == "http" and parts.hostname in _HERE:
        if parts.hostname == "127.0.0.1":
            return DeskRedirect(here)  # an app for desktops may come back to any port of this machine
        there = f"http://127.0.0.1:{parts.port or 80}"
        return DeskRedirect(None, f"Platforms send the browser back to 127.0.0.1 only: open the desk at {there} and connect there.")
    why = f"The desk is at {here}, which {platform.title} must know first. Register it for the app and set {variable} to it"
    return DeskRedirect(None, f"{why}. An app for desktops takes no such address: run `{command}` where your browser is.")


def sealed(visit: Visit, platform: Platform, name: str, attempt: Attempt) -> str:
    """The attempt as a cookie's value."""
    kept = {
        "platform": str(platform),
        "name": name,
        "redirect_uri": attempt.redirect_uri,
        "state": attempt.state,
        "verifier": attempt.consent.verifier,
        "session": _session(visit),
        "until": visit.desk.services.clock.now().timestamp() + SECONDS,
    }
    return vault(visit.desk.settings).encrypt(json.dumps(kept)).decode()


def unsealed(visit: Visit) -> tuple[Platform, str, Attempt]:
    """The attempt that this browser began. Raises InvalidInput when there is none, or not any more."""
    given = visit.request.cookies.get(COOKIE)
    if not given:
        raise InvalidInput("this browser has no attempt under way: begin again on the page Accounts")
    try:
        kept = json.loads(vault(visit.desk.settings).decrypt(given.encode()))
    except (WrongKey, ValueError):  # the vault's own words are about stored tokens
        raise InvalidInput("this browser's attempt cannot be read: begin again on the page Accounts") from None
    if kept["session"] != _session(visit):
        raise InvalidInput("the attempt was begun in another session: begin again on the page Accounts")
    if visit.desk.services.clock.now().timestamp() > kept["until"]:
        raise InvalidInput("the attempt took longer than ten minutes: begin again on the page Accounts")
    consent = Consent(url="", verifier=kept["verifier"])
    return Platform(kept["platform"]), kept["name"], Attempt(kept["redirect_uri"], kept["state"], consent)


def _session(visit: Visit) -> str:
    return visit.desk.keys.mac("connect", visit.secret)

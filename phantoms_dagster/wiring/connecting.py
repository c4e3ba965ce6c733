"""Connecting an account: the owner grants access in a browser, and the tokens are stored with the owner's identity.

Nothing is stored unless the answer belongs to this attempt, all needed permissions were granted, and the owner is the right one.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import cast
from urllib.parse import parse_qsl, unquote, urlsplit

from phantoms_dagster.domain.errors import InvalidInput, ProviderError, Transient
from phantoms_dagster.domain.grants import Consent, Grant, GrantDead, OAuth, StoredGrant
from phantoms_dagster.domain.models import MAX_ACCOUNT_NAME_CHARACTERS, Platform
from phantoms_dagster.domain.ports import AccountIdentity, IdentityReader
from phantoms_dagster.domain.text import nfc, unfit
from phantoms_dagster.providers.http import unreachable
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.grants import Grants, any_stored
from phantoms_dagster.store.vault import Vault
from phantoms_dagster.wiring.account_tools import GivenToken, account_tools
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.platforms import Toolbox, can
from phantoms_dagster.wiring.services import Services
from phantoms_dagster.wiring.token_keys import vault

PASTE_PORT = 8400
ANY_PORT = ":*/"  # TikTok registers addresses of this machine with this in place of a port
_NO_ADDRESS = "that is neither the address of the page nor a code: copy the whole address from the browser"


class WrongState(InvalidInput):
    """The answer belongs to a different attempt."""


class Denied(InvalidInput):
    """The owner did not grant access, or did not grant all needed permissions."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to connect: where the owner must go, and what proves that an answer belongs to it."""

    redirect_uri: str
    state: str = field(repr=False)
    consent: Consent = field(repr=False)


@dataclass(frozen=True)
class Connected:
    """The connected account's owner, the answer of the platform, and what the person must know about it (empty: nothing)."""

    owner: AccountIdentity
    grant: Grant
    warning: str


class Connecting:
    """Connects one account. Raises InvalidInput when the platform or the account cannot be connected."""

    def __init__(self, services: Services, platform: Platform, name: str | None) -> None:
        if not can(platform, "oauth"):
            raise InvalidInput(f"{platform.title} has nothing to connect: {platform.spec.sign_in}")
        if services.settings.sandbox.mode == "on":
            raise InvalidInput("PHANTOMS_SANDBOX is on, so no platform is used: set it to auto or off to connect an account")
        self._services = services
        self._settings = services.settings
        self.platform = platform
        self.name = _checked(name) if name else self._only_name()
        self.finishing = False  # whether an answer is being stored
        # The sandbox must not answer for a platform while its first account is being connected.
        self._endpoints = Endpoints(self._settings, lambda: {str(platform)})
        self._check_source()

    @property
    def is_named(self) -> bool:
        """Whether a channel names the account."""
        return self.name in self._named()

    @property
    def redirect_uri(self) -> str | None:
        """The redirect URI that the settings say was registered. Its port may be `*`. Raises InvalidInput if it is no address."""
        found: str | None = self._endpoints.setting(str(self.platform), "redirect_uri")
        if found is None:
            return None
        variable = f"PHANTOMS_{self.platform.upper()}_REDIRECT_URI"
        try:
            there = urlsplit(at_port(found, 1))
            usable = there.scheme in ("http", "https") and bool(there.hostname) and there.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise InvalidInput(f"{variable} is {found}, which is not an address: write it as it is registered for the app")
        return found

    def begin(self, redirect_uri: str) -> Attempt:
        """Make the URL that the owner must open. Raises InvalidInput when a setting or the key for the tokens is missing."""
        state = secrets.token_urlsafe(24)
        attempt = Attempt(redirect_uri, state, asyncio.run(self._consent(redirect_uri, state)))
        # Before the owner is asked: a code works once, so an answer that cannot be stored would be wasted.
        self._vault().check()
        return attempt

    def _vault(self) -> Vault:
        """The vault. Only the first account of all makes a key: workers on other machines could not read a second one."""
        return vault(self._settings, make=not any_stored(self._services.engine))

    async def _consent(self, redirect_uri: str, state: str) -> Consent:
        async with self._tools(GivenToken("")) as toolbox:
            return cast(OAuth, toolbox.make(self.platform, "oauth")).consent(redirect_uri=redirect_uri, state=state)

    def code_in(self, attempt: Attempt, answer: Mapping[str, str]) -> str:
        """The code in the platform's answer. Raises WrongState, and Denied when the owner refused."""
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise WrongState("that answer belongs to another attempt: use the page that was opened last, or start again")
        if "error" in answer:
            said = redact(" ".join(answer.get("error_description", "").split()))[:200]
            word = "".join(c for c in answer["error"][:60] if c.isascii() and (c.isalnum() or c in "_-. "))
            message = f"{self.platform.title} gave no access ({word or 'no reason given'}{f': {said}' if said else ''})"
            raise Denied(f"{message}; nothing was stored")
        code = answer.get("code", "").removesuffix("#_")
        if not code:
            raise InvalidInput(f"the answer of {self.platform.title} has no code: start again")
        return code

    def code_pasted(self, attempt: Attempt, pasted: str) -> str:
        """The code in what a person pasted: the whole address of the page they were sent to, or the code alone."""
        pasted = pasted.strip()
        if "code=" in pasted or "error=" in pasted:
            try:
                query = urlsplit(pasted).query if "://" in pasted else pasted.lstrip("?")
            except ValueError:
                raise InvalidInput(_NO_ADDRESS) from None
            return self.code_in(attempt, dict(parse_qsl(query)))
        if not pasted or any(c.isspace() for c in pasted) or "://" in pasted:
            raise InvalidInput(_NO_ADDRESS)
        if not attempt.consent.verifier:
            # Without PKCE only the state of the address proves that the code is of this attempt, and not of another person.
            raise InvalidInput(f"{self.platform.title} needs the whole address, not the code alone: copy it from the browser")
        return unquote(pasted).removesuffix("#_")

    def finish(self, attempt: Attempt, code: str) -> Connected:
        """Exchange the code, check permissions and owner, and store the tokens. Raises InvalidInput and ProviderError."""
        self.finishing = True
        try:
            connected = asyncio.run(self._exchange(attempt, code))
        except Transient as error:
            raise _not_answered(self.platform, error) from error
        owner = connected.owner
        other = self._other_name(owner)
        if other is not None:
            message = f"{owner.label} ({owner.subject}) is already account {other}: log in as another {self.platform.title} account"
            raise InvalidInput(f"{message} in the browser, and connect again")
        grants = Grants(self._services.engine, self._vault())
        grants.connect(self.platform, self.name, connected.grant, owner)
        return connected

    async def _exchange(self, attempt: Attempt, code: str) -> Connected:
        async with self._tools(GivenToken("")) as toolbox:
            oauth = cast(OAuth, toolbox.make(self.platform, "oauth"))
            try:
                grant = await oauth.exchange(code, redirect_uri=attempt.redirect_uri, verifier=attempt.consent.verifier)
            except GrantDead as error:
                message = f"{self.platform.title} did not accept the code ({error}). A code works once and for a short time"
                raise Denied(
                    f"{message}: start again, and make sure that {attempt.redirect_uri} is registered for the app"
                ) from error
        missing = [] if grant.scopes is None else oauth.missing(grant.scopes)
        if missing:
            message = f"these permissions were not granted: {', '.join(missing)}; nothing was stored"
            raise Denied(f"{message}. Connect again, and leave all of them ticked")
        async with self._tools(GivenToken(grant.access_token)) as toolbox:
            owner = await cast(IdentityReader, toolbox.make(self.platform, "identity")).read(self.name)
        return Connected(owner, grant, oauth.warning(grant))

    def _tools(self, tokens: GivenToken) -> AbstractAsyncContextManager[Toolbox]:
        route = self._services.routes().get((self.platform, self.name), "")
        return account_tools(self._settings, self._endpoints, self.platform, self.name, None, tokens=tokens, route=route)

    # --- names

    def _named(self) -> list[str]:
        channels = self._services.channels().values()
        return sorted({channel.accounts[self.platform] for channel in channels if self.platform in channel.accounts})

    def _only_name(self) -> str:
        named = self._named()
        if len(named) > 1:
            raise InvalidInput(f"channels.yaml names {len(named)} {self.platform.title} accounts; choose one: --name {named[0]}")
        return named[0] if named else "main"

    def _check_source(self) -> None:
        for channel in self._services.channels().values():
            source = channel.tokens.get(self.platform)
            if source is not None and channel.accounts.get(self.platform) == self.name:
                message = f"channels.yaml says that the token of {self.platform}:{self.name} is in {source}: remove that first"
                raise InvalidInput(message)

    def _other_name(self, owner: AccountIdentity) -> str | None:
        named = self._named()
        for account in Accounts(self._services.engine).all():
            same = account.platform == self.platform and account.subject == owner.subject
            if same and account.name != self.name and account.name in named:
                return account.name
        return None


def at_port(redirect_uri: str, port: int) -> str:
    """The redirect URI with this port, if any port of this machine was registered."""
    return redirect_uri.replace(ANY_PORT, f":{port}/", 1)


def _not_answered(platform: Platform, error: Transient) -> Transient:
    """The error for a platform that did not answer in words that help: the code of the attempt is lost."""
    away = error.evidence.status is None or error.code == "malformed"
    why = f"{platform.title} cannot be reached: {unreachable(error)}" if away else str(error)
    message = f"{why}; nothing was stored. Connect again once it answers"
    return Transient(message, provider=error.provider, code=error.code, evidence=error.evidence)


def _checked(name: str) -> str:
    """The account's name in the form that channels.yaml gives it. Raises InvalidInput for a name that channels.yaml refuses."""
    found = nfc(name).strip()
    if not found or len(found) > MAX_ACCOUNT_NAME_CHARACTERS:
        raise InvalidInput(f"an account's name has 1 to {MAX_ACCOUNT_NAME_CHARACTERS} characters")
    if "\n" in found or "\r" in found or "\t" in found:
        raise InvalidInput("an account's name is one line without tabs")
    if (problem := unfit(found)) is not None:
        raise InvalidInput(f"the account's name {problem}")
    return found


def disconnect(services: Services, platform: Platform, name: str) -> str:
    """End the connection at the platform, and delete the tokens. Returns why the platform was not told; empty: it was.

    Raises NotFound when the account is not connected.
    """
    grants = Grants(services.engine, vault(services.settings))
    owner = "its owner can remove the app in the platform's settings"
    while True:  # until no process has stored newer tokens meanwhile, which the platform must be told about, too
        generation = grants.generation(platform, name)
        try:
            told = revoke(services, platform, name, grants.read(platform, name))
            why = "" if told else f"the platform has no way to say so; {owner}"
        except (InvalidInput, ProviderError) as error:
            why = f"the platform was not told: {error}; {owner}"
        if grants.disconnect(platform, name, generation):
            return why


def revoke(services: Services, platform: Platform, name: str, stored: StoredGrant) -> bool:
    """Tell the platform that the grant is not used any more. False if it has no way to do that. Raises ProviderError."""

    async def work() -> bool:
        endpoints = Endpoints(services.settings, lambda: {str(platform)})
        async with account_tools(services.settings, endpoints, platform, name, None, tokens=GivenToken("")) as toolbox:
            oauth, last = cast(OAuth, toolbox.make(platform, "oauth")), stored
            if stored.left_seconds <= 0 and stored.refresh_token is not None:
                # TikTok revokes by the access token. An expired one would revoke nothing, and the refresh token would live on.
                try:
                    grant = await oauth.renew(stored)
                except GrantDead:
                    return True
                last = replace(stored, access_token=grant.access_token, refresh_token=grant.refresh_token or stored.refresh_token)
            return await oauth.revoke(last)

    return asyncio.run(work())

"""The grants that people give to apps at the stand-ins' authorization servers, with their codes and tokens.

Only hashes of codes and tokens are kept. The ledger names a token by its serial number. `POST /_sandbox/grants` revokes an
account's grants or expires its access tokens at once. `<platform>` in settings is `youtube`, `tiktok` or `instagram`:

- `<platform>.clients`: the registered apps, {id: {"secret": text, "redirect_uris": [text]}}, instead of the default one;
- `<platform>.code_seconds`: how long a code is valid;
- `<platform>.revoked` ([]): accounts whose grants count as revoked;
- `<platform>.clock_skew` (0): how many seconds the clock that judges tokens is ahead of the one that issues them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox

DAY = 86_400.0
ACCESS, REFRESH = "access", "refresh"


@dataclass
class SandboxGrant:
    """What one person allowed one app."""

    number: int
    platform: str
    client: str
    account: str
    scopes: tuple[str, ...]
    revoked: bool = False


@dataclass
class IssuedToken:
    """A token of a grant, without its text. `kind`: access or refresh. `expires_at` is None for one that does not expire."""

    key: str
    serial: int
    kind: str
    grant: int
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float | None
    dead: bool = False


@dataclass
class Code:
    """An authorization code. `offline`: whether it gives a refresh token."""

    key: str
    platform: str
    client: str
    account: str
    redirect_uri: str
    scopes: tuple[str, ...]
    challenge: str
    method: str
    expires_at: float
    offline: bool = True
    used: bool = False


class Grants:
    """The grants, codes and tokens of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._grants = {grant.number: grant for grant in sandbox.kept("oauth.grant", SandboxGrant)}
        self._tokens = {token.key: token for token in sandbox.kept("oauth.token", IssuedToken)}
        self._codes = {code.key: code for code in sandbox.kept("oauth.code", Code)}

    @classmethod
    def of(cls, sandbox: Sandbox) -> Grants:
        """The grants of the sandbox."""
        if "grants" not in sandbox.state:
            sandbox.state["grants"] = cls(sandbox)
        found: Grants = sandbox.state["grants"]
        return found

    # --- codes

    def new_code(self, text: str, code: Code) -> str:
        """Register a code by its text, and return the text."""
        now = self._sandbox.now()
        for old in [c for c in self._codes.values() if now >= c.expires_at]:
            del self._codes[old.key]
            self._sandbox.forget("oauth.code", old.key)
        kept = replace(code, key=_hash(text))
        self._codes[kept.key] = kept
        self._sandbox.keep("oauth.code", kept.key, kept)
        return text

    def take_code(self, platform: str, text: str, *, client: str, redirect_uri: str) -> Code | None:
        """The code, which is used up by this call. None unless it is unused and alive, and was given to this app and address."""
        code = self._codes.get(_hash(text))
        if code is None or code.platform != platform or code.used or self._sandbox.now() >= code.expires_at:
            return None
        if (code.client, code.redirect_uri) != (client, redirect_uri):
            return None
        code.used = True
        self._sandbox.keep("oauth.code", code.key, code)
        return code

    # --- grants

    def new_grant(self, platform: str, client: str, account: str, scopes: tuple[str, ...]) -> SandboxGrant:
        """Register what the person allowed."""
        grant = SandboxGrant(self._sandbox.number("oauth.grant"), platform, client, account, scopes)
        self._grants[grant.number] = grant
        self._sandbox.keep("oauth.grant", str(grant.number), grant)
        return grant

    def live(self, platform: str, client: str, account: str) -> Iterator[SandboxGrant]:
        """The grants of that account to that app which nobody revoked."""
        for grant in self._grants.values():
            if (grant.platform, grant.client, grant.account) == (platform, client, account) and not self.revoked(grant):
                yield grant

    def grant_of(self, token: IssuedToken) -> SandboxGrant:
        """The token's grant."""
        return self._grants[token.grant]

    def revoked(self, grant: SandboxGrant) -> bool:
        """Whether the grant was revoked, by a request or by the setting."""
        return grant.revoked or grant.account in self._sandbox.setting(f"{grant.platform}.revoked", [])

    def revoke(self, platform: str, account: str, client: str | None = None) -> int:
        """Revoke the account's grants to the app, or to all apps, with all their tokens. Returns their number."""
        found = [
            grant
            for grant in self._grants.values()
            if (grant.platform, grant.account) == (platform, account) and client in (None, grant.client) and not grant.revoked
        ]
        for grant in found:
            grant.revoked = True
            self._sandbox.keep("oauth.grant", str(grant.number), grant)
            self._sandbox.record("oauth.revoked", platform=platform, account=account, grant=grant.number)
        return len(found)

    # --- tokens

    def issue(self, grant: SandboxGrant, kind: str, prefix: str, *, seconds: float | None, event: str = "issued") -> str:
        """A new token of the grant. `seconds`: its life."""
        text, now = prefix + secrets.token_urlsafe(40), self._sandbox.now()
        token = IssuedToken(
            key=_hash(text),
            serial=self._sandbox.number("oauth.token"),
            kind=kind,
            grant=grant.number,
            scopes=grant.scopes,
            issued_at=now,
            expires_at=None if seconds is None else now + seconds,
        )
        for old in [t for t in self.tokens(grant, kind) if t.expires_at is not None and now >= t.expires_at + DAY]:
            del self._tokens[old.key]  # a client cannot tell it from an expired one
            self._sandbox.forget("oauth.token", old.key)
        self._tokens[token.key] = token
        self._sandbox.keep("oauth.token", token.key, token)
        self._sandbox.record(
            f"oauth.{event}", platform=grant.platform, account=grant.account, grant=grant.number, token=kind, serial=token.serial
        )
        return text

    def token(self, platform: str, kind: str, text: str) -> IssuedToken | None:
        """The token for its text, dead or alive."""
        found = self._tokens.get(_hash(text))
        return found if found and found.kind == kind and self.grant_of(found).platform == platform else None

    def tokens(self, grant: SandboxGrant, kind: str) -> list[IssuedToken]:
        """The grant's tokens of that kind, oldest first."""
        return [token for token in self._tokens.values() if (token.grant, token.kind) == (grant.number, kind)]

    def expired(self, token: IssuedToken) -> bool:
        """Whether its time is over, on the clock of the platform that judges it."""
        skew = float(self._sandbox.setting(f"{self.grant_of(token).platform}.clock_skew", 0))
        return token.expires_at is not None and self._sandbox.now() + skew >= token.expires_at

    def alive(self, token: IssuedToken) -> bool:
        """Whether the platform accepts it."""
        return not (token.dead or self.expired(token) or self.revoked(self.grant_of(token)))

    def end(self, token: IssuedToken, *, in_seconds: float = 0.0) -> None:
        """End the token's life, now or later, but not later than it would end anyway."""
        end = self._sandbox.now() + in_seconds
        token.expires_at = end if token.expires_at is None else min(end, token.expires_at)
        token.dead = token.dead or in_seconds <= 0
        self._sandbox.keep("oauth.token", token.key, token)

    def used(self, token: IssuedToken, *, lasts: float) -> None:
        """Let the token live that many seconds from now, because it was used."""
        token.expires_at = self._sandbox.now() + lasts
        self._sandbox.keep("oauth.token", token.key, token)

    def expire(self, platform: str, account: str) -> int:
        """Expire the account's access tokens now. Returns their number."""
        now, found = self._sandbox.now(), 0
        for token in self._tokens.values():
            grant = self.grant_of(token)
            if token.kind == ACCESS and (grant.platform, grant.account) == (platform, account) and self.alive(token):
                token.expires_at = now
                self._sandbox.keep("oauth.token", token.key, token)
                found += 1
        return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The control route."""

    async def change(request: web.Request) -> web.Response:
        """POST {"platform": .., "account": .., "action": "revoke" or "expire"}."""
        body: dict[str, Any] = await request.json()
        grants = Grants.of(sandbox)
        actions = {"revoke": grants.revoke, "expire": grants.expire}
        action = actions.get(str(body.get("action")))
        if action is None or not body.get("platform") or not body.get("account"):
            return web.json_response({"error": f"give `platform`, `account` and an `action`: {', '.join(actions)}"}, status=400)
        return web.json_response({"changed": action(str(body["platform"]), str(body["account"]))})

    return [web.post("/_sandbox/grants", change, name="sandbox.grants")]

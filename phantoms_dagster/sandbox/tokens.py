"""The stand-ins' access tokens: their owners, their scopes, and their lives.

A token has the form `sandbox-<account>`; `sandbox-<account>~2` is another token of the same account. It permits everything and
does not expire unless settings say otherwise. `<platform>` is a platform's name; the entries are tokens or accounts:

- `<platform>.scopes`: {"ocean": ["video.list"]}, the only scopes of that token;
- `<platform>.token_seconds` (None): how long a token lives, counted from its first use;
- `<platform>.revoked` ([]): tokens that the account's owner has revoked.

Tokens that an authorization server of the sandbox has issued (`grants`) have the scopes and the life of their grant instead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from phantoms_dagster.sandbox.core import Sandbox, account_behind
from phantoms_dagster.sandbox.grants import ACCESS, Grants


@dataclass(frozen=True)
class Token:
    """A token of the sandbox. Times are in seconds since the epoch. `expires_at` is None for a token that does not expire."""

    text: str
    account: str
    scopes: frozenset[str]
    issued_at: float
    expires_at: float | None
    expired: bool
    revoked: bool
    issued: bool = False  # by an authorization server of the sandbox

    @property
    def alive(self) -> bool:
        """Whether the platform still accepts it."""
        return not (self.expired or self.revoked)


def token_of(sandbox: Sandbox, platform: str, text: str, scopes: Collection[str]) -> Token | None:
    """The token for its text; None if it is not one of the sandbox's. `scopes`: all scopes of the platform."""
    account = account_behind(text)
    if account is None:
        return _issued_token(sandbox, platform, text)
    issued_at = _issued(sandbox, f"{platform} {text}")
    seconds = sandbox.setting(f"{platform}.token_seconds", None)
    expires_at = None if seconds is None else issued_at + float(seconds)
    limited = sandbox.setting(f"{platform}.scopes", {})
    revoked = sandbox.setting(f"{platform}.revoked", [])
    return Token(
        text=text,
        account=account,
        scopes=frozenset(limited.get(text, limited.get(account, scopes))),
        issued_at=issued_at,
        expires_at=expires_at,
        expired=expires_at is not None and sandbox.now() >= expires_at,
        revoked=text in revoked or account in revoked,
    )


def _issued_token(sandbox: Sandbox, platform: str, text: str) -> Token | None:
    grants = Grants.of(sandbox)
    token = grants.token(platform, ACCESS, text)
    if token is None:
        return None
    grant = grants.grant_of(token)
    return Token(
        text=text,
        account=grant.account,
        scopes=frozenset(token.scopes),
        issued_at=token.issued_at,
        expires_at=token.expires_at,
        expired=grants.expired(token),
        revoked=token.dead or grants.revoked(grant),
        issued=True,
    )


def _issued(sandbox: Sandbox, name: str) -> float:
    """When the token was first used."""
    if "tokens" not in sandbox.state:
        sandbox.state["tokens"] = dict(sandbox.kept_rows("token"))
    issued: dict[str, float] = sandbox.state["tokens"]
    if name not in issued:
        issued[name] = sandbox.now()
        sandbox.keep("token", name, issued[name])
    return issued[name]

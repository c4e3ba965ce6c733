"""Access tokens as the stand-ins know them: whose they are, what they allow, and how long they live.

A token reads `sandbox-<account>`; `sandbox-<account>~2` is another token of the same account. It allows everything and lives
for ever, unless settings say otherwise. `<platform>` is the name of a platform; entries name a token or an account:

- `<platform>.scopes`: {"ocean": ["video.list"]}, the only scopes of that token;
- `<platform>.token_seconds` (None): how long a token lives, counted from its first use;
- `<platform>.revoked` ([]): tokens that the account's owner has withdrawn.

How a platform refuses a token is in that platform's module.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from phantoms_dagster.sandbox.core import Sandbox, account_behind


@dataclass(frozen=True)
class Token:
    """A token of the sandbox. Times are seconds since the epoch; `expires_at` is None for a token that does not expire."""

    text: str
    account: str
    scopes: frozenset[str]
    issued_at: float
    expires_at: float | None
    expired: bool
    revoked: bool

    @property
    def alive(self) -> bool:
        """Whether the platform still accepts it."""
        return not (self.expired or self.revoked)


def token_of(sandbox: Sandbox, platform: str, text: str, scopes: Collection[str]) -> Token | None:
    """What stands behind a token; None when it is none of the sandbox's. `scopes` are those that the platform knows."""
    account = account_behind(text)
    if account is None:
        return None
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


def _issued(sandbox: Sandbox, name: str) -> float:
    """When that token was first seen."""
    if "tokens" not in sandbox.state:
        sandbox.state["tokens"] = dict(sandbox.kept_rows("token"))
    issued: dict[str, float] = sandbox.state["tokens"]
    if name not in issued:
        issued[name] = sandbox.now()
        sandbox.keep("token", name, issued[name])
    return issued[name]

"""Checks, before the first byte of a post, that an account's token works and still has the same owner.

If it does not, all posts of the account wait. `store.accounts` keeps the row. Each platform's adapter asks who owns a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from phantoms_dagster.domain.accounts import ACTIVE, BARRED, DISCONNECTED, MISMATCH, Account, fingerprint
from phantoms_dagster.domain.errors import Barred, NotYet, Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, IdentityReader, Tokens

# How often a refused token is tried again. A replaced token is tried at once.
ASK_AGAIN_SECONDS = 300.0
# A barred account is tried with a post, which a platform may hold against it. So the pause grows up to this.
# `phantoms accounts check` lets the next post try at once.
BARRED_MOST_SECONDS = 21_600.0
# When a post is tried again whose account was connected while the post was under way.
CONNECTED_SECONDS = 1.0


class AccountStore(Protocol):
    """The table of accounts."""

    async def look(self, platform: Platform, name: str) -> Account:
        """The stored account."""
        ...

    async def may_ask(self, platform: Platform, name: str, *, every_seconds: float, longest_seconds: float) -> bool:
        """Whether this caller may ask the platform. Only one process gets True, once every `every_seconds`.

        The longer the account waits, the longer the pause: a twelfth of that time, up to `longest_seconds`.
        """
        ...

    async def confirm(self, account: Account, identity: AccountIdentity, token_sha256: str) -> None:
        """Record that the token works and belongs to that identity. Stages that waited for the account become due."""
        ...

    async def mark(self, account: Account, state: str, reason: str, token_sha256: str | None) -> bool:
        """Record that the account waits, and why. False if a person connected it after `account` was read."""
        ...

    async def other_account(self, platform: Platform, subject: str, name: str) -> str | None:
        """The name of another account of the channels with the same owner, or None."""
        ...


class Entered(NamedTuple):
    """A post that was let through. `probes`: the account was barred, and this post tests whether it still is.

    `account`: as it was then; None in the sandbox.
    """

    probes: bool
    account: Account | None = None


class AccountWaits(NotYet):
    """An account cannot post now, so its posts wait. However many wait, there is one alert."""


class AccountGate:
    """Lets an account's posts through while its token works and has the same owner as before."""

    def __init__(
        self,
        *,
        store: AccountStore,
        tokens: Tokens,
        readers: Mapping[Platform, IdentityReader],
        sandboxed: Callable[[Platform], bool],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._readers = readers
        self._sandboxed = sandboxed

    async def look(self, platform: Platform, name: str) -> Account | None:
        """The account as it is before a call, for `dead`; None in the sandbox."""
        return None if self._sandboxed(platform) else await self._store.look(platform, name)

    async def enter(self, platform: Platform, name: str) -> Entered:
        """Let a post through or raise AccountWaits. Other errors of the platform are raised unchanged.

        Call `post_succeeded` if it probes and succeeds, and `refused` with its account if its token is refused.
        """
        if self._sandboxed(platform):
            # The sandbox has no accounts to mix up, and its accounts are not stored among the real ones.
            return Entered(probes=False)
        account = await self._store.look(platform, name)
        try:
            token = await self._tokens.token(platform, name)
        except Permanent as error:
            raise await self._stop(account, DISCONNECTED, str(error), None) from error
        used = fingerprint(token)
        same = account.token_sha256 == used
        if account.state == ACTIVE and same and account.subject is not None:
            return Entered(probes=False, account=account)
        longest = BARRED_MOST_SECONDS if account.state == BARRED else ASK_AGAIN_SECONDS
        if (
            account.state != ACTIVE
            and same
            and not await self._store.may_ask(platform, name, every_seconds=ASK_AGAIN_SECONDS, longest_seconds=longest)
        ):
            raise AccountWaits(waiting(account, account.reason or account.state), retry_after=ASK_AGAIN_SECONDS)
        if account.state == BARRED and same:
            return Entered(probes=True, account=account)  # the owner is known, and only a post can show whether it may post again
        try:
            identity = await self._readers[platform].read(name)
        except Permanent as error:
            raise await self._stop(account, DISCONNECTED, str(error), used) from error
        if account.subject not in (None, identity.subject):
            reason = (
                f"its token belongs to {identity.label} ({identity.subject}), but the account was {account.label} "
                f"({account.subject}) before: give it the right token, or run `phantoms accounts --forget {platform}:{name}`"
            )
            raise await self._stop(account, MISMATCH, reason, used)
        other = await self._store.other_account(platform, identity.subject, name)
        if other is not None:
            reason = (
                f"its token belongs to {identity.label} ({identity.subject}), which is already account {other}: "
                "give each account its own token"
            )
            raise await self._stop(account, MISMATCH, reason, used)
        await self._store.confirm(account, identity, used)
        return Entered(probes=False, account=account)

    async def post_succeeded(self, platform: Platform, name: str) -> None:
        """Record that a post of a barred account succeeded. The account's other posts become due."""
        account = await self._store.look(platform, name)
        if account.subject is None:
            return  # the account was forgotten meanwhile; the next post asks who owns the token
        identity = AccountIdentity(account.subject, account.label or account.subject)
        await self._store.confirm(account, identity, fingerprint(await self._tokens.token(platform, name)))

    async def dead(self, platform: Platform, name: str, error: Permanent, before: Account | None) -> None:
        """Record that reading metrics was refused because of the token, so that posts need not find that out one by one.

        `before`: see `look`.
        """
        if not self._sandboxed(platform):
            await self.refused(platform, name, error, before)

    async def refused(self, platform: Platform, name: str, error: Permanent, before: Account | None = None) -> AccountWaits:
        """Record that the platform refused the account's token during a post. Returns the error to raise.

        `before`: the account as it was before the post. If a person has connected it since, its new tokens were not refused.
        """
        account = before or await self._store.look(platform, name)
        try:
            used = fingerprint(await self._tokens.token(platform, name))
        except Permanent:
            used = None
        state = BARRED if isinstance(error, Barred) else DISCONNECTED
        return await self._stop(account, state, str(error), used)

    async def _stop(self, account: Account, state: str, reason: str, token_sha256: str | None) -> AccountWaits:
        if not await self._store.mark(account, state, reason, token_sha256):
            return AccountWaits(waiting(account, "it was connected a moment ago"), retry_after=CONNECTED_SECONDS)
        return AccountWaits(waiting(account, reason), retry_after=ASK_AGAIN_SECONDS)


def waiting(account: Account, reason: str) -> str:
    """Why the account's posts wait. `store.accounts` finds such posts by the beginning of this text."""
    return f"{account.platform} account {account.name} waits: {reason}"

"""Whose token an account has: asked before its first byte, kept, and compared. An account in trouble waits as a whole.

How the row is kept belongs in `store.accounts`; how a platform is asked, in its adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol

from phantoms_dagster.domain.accounts import ACTIVE, BARRED, DISCONNECTED, MISMATCH, Account
from phantoms_dagster.domain.errors import Barred, NotYet, Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, IdentityReader, Tokens

# How often the platform is asked whether a refused token works again. A token that is replaced is asked about at once.
ASK_AGAIN_SECONDS = 300.0


class AccountStore(Protocol):
    """The table of accounts."""

    async def look(self, platform: Platform, name: str) -> Account:
        """The account as it is kept."""
        ...

    async def may_ask(self, platform: Platform, name: str, *, every_seconds: float) -> bool:
        """Whether it is this caller's turn to ask the platform: one of all processes, once in so many seconds."""
        ...

    async def confirm(self, account: Account, identity: AccountIdentity, token_sha256: str) -> None:
        """The token works and is that identity's: what waited for the account is due now."""
        ...

    async def mark(self, account: Account, state: str, reason: str, token_sha256: str | None) -> None:
        """The account waits."""
        ...

    async def also(self, platform: Platform, subject: str, name: str) -> str | None:
        """The name of another account of the channels that is the same identity."""
        ...


class AccountWaits(NotYet):
    """An account cannot post now; its posts wait. One alert tells of it, whatever their number."""


class AccountGate:
    """Lets an account's posts through while its token is good and is whose it always was."""

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

    async def enter(self, platform: Platform, name: str) -> bool:
        """Raises AccountWaits. What the platform answers besides is raised as it is.

        True: the account was barred, and this post finds out whether it still is; `worked` is to be told when it succeeds.
        """
        if self._sandboxed(platform):
            return False  # the sandbox has no accounts to mix up, and nothing of it is kept with the real ones
        account = await self._store.look(platform, name)
        try:
            token = await self._tokens.token(platform, name)
        except Permanent as error:
            raise await self._stop(account, DISCONNECTED, str(error), None) from error
        used = fingerprint(token)
        same = account.token_sha256 == used
        if account.state == ACTIVE and same and account.subject is not None:
            return False
        if account.state != ACTIVE and same and not await self._store.may_ask(platform, name, every_seconds=ASK_AGAIN_SECONDS):
            raise AccountWaits(waiting(account, account.reason or account.state), retry_after=ASK_AGAIN_SECONDS)
        if account.state == BARRED and same:
            return True  # whose the token is, is known; whether it may post, only a post can tell
        try:
            identity = await self._readers[platform].read(name)
        except Permanent as error:
            raise await self._stop(account, DISCONNECTED, str(error), used) from error
        if account.subject not in (None, identity.subject):
            reason = (
                f"its token is that of {identity.label} ({identity.subject}), and the account was {account.label} "
                f"({account.subject}) before: give it the right token, or run `phantoms accounts --forget {platform}:{name}`"
            )
            raise await self._stop(account, MISMATCH, reason, used)
        other = await self._store.also(platform, identity.subject, name)
        if other is not None:
            reason = (
                f"its token is that of {identity.label} ({identity.subject}), which is account {other} already: "
                "give each account its own token"
            )
            raise await self._stop(account, MISMATCH, reason, used)
        await self._store.confirm(account, identity, used)
        return False

    async def worked(self, platform: Platform, name: str) -> None:
        """A post of an account that was barred went through: the others are due now."""
        account = await self._store.look(platform, name)
        if account.subject is None:
            return  # it was forgotten meanwhile: the next post asks whose it is
        identity = AccountIdentity(account.subject, account.label or account.subject)
        await self._store.confirm(account, identity, fingerprint(await self._tokens.token(platform, name)))

    async def dead(self, platform: Platform, name: str, error: Permanent) -> None:
        """A reader of results was told that the token is dead: the posts need not find that out one by one."""
        if not self._sandboxed(platform):
            await self.refused(platform, name, error)

    async def refused(self, platform: Platform, name: str, error: Permanent) -> AccountWaits:
        """The error to raise when the platform refused the account's token in the middle of a post."""
        account = await self._store.look(platform, name)
        try:
            used = fingerprint(await self._tokens.token(platform, name))
        except Permanent:
            used = None
        state = BARRED if isinstance(error, Barred) else DISCONNECTED
        return await self._stop(account, state, str(error), used)

    async def _stop(self, account: Account, state: str, reason: str, token_sha256: str | None) -> AccountWaits:
        await self._store.mark(account, state, reason, token_sha256)
        return AccountWaits(waiting(account, reason), retry_after=ASK_AGAIN_SECONDS)


def fingerprint(token: str) -> str:
    """Tells one token from another and gives nothing of it away."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def waiting(account: Account, reason: str) -> str:
    """Why its posts wait. `store.accounts` finds them by how this begins."""
    return f"{account.platform} account {account.name} waits: {reason}"

"""Renews the stored tokens of accounts: early, once in the whole fleet, and never losing a token that works.

The promise is kept here:
- Only the process that `begin` let through calls the platform. `begin` records the hash of the old refresh token first.
- The answer is stored before anybody uses it, and only if the generation is still the one that was read.
- An empty, malformed or failed answer changes nothing.
- While PostgreSQL is away, the process keeps the answer and tries to store it until that succeeds.
- After a crash between the call and the commit, the old refresh token is tried one more time.
- An account is reported as dead only if the platform refused the generation that is stored now.

`store.grants` keeps the rows. A platform's `oauth` module knows the requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from phantoms_dagster.domain.accounts import connect_command, fingerprint
from phantoms_dagster.domain.errors import Disconnected, InvalidInput, NotYet, Permanent, PhantomsError, StoreAway, Transient
from phantoms_dagster.domain.grants import AppRefused, Grant, GrantDead, OAuth, StoredGrant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock

# A refresh that did not end in this time was cut off. It is longer than the call's deadline.
LEASE_SECONDS = 45.0
# Between two refreshes of one account, whatever came of the first.
PAUSE_SECONDS = 60.0
# A token with less life than this counts as expired: the request that uses it takes time.
LEEWAY_SECONDS = 30.0
# How often a caller looks whether the process that renews its token is done.
LOOK_SECONDS = 0.25
# How long a caller waits for it. After that its video waits in the table.
WAIT_SECONDS = 15.0
# How long a caller waits for a refresh of its own process: longer than the platform's call and a short absence of PostgreSQL.
OWN_WAIT_SECONDS = 90.0
# After PostgreSQL was away for a minute, the next try to store an answer comes this much later.
SAVE_AGAIN_SECONDS = 5.0
# An account that nothing uses is renewed this often, so that its grant stays alive.
IDLE_SECONDS = 7 * 86_400.0

_log = logging.getLogger(__name__)


class GrantStore(Protocol):
    """The stored grants. Every write is one transaction."""

    async def read(self, platform: Platform, name: str) -> StoredGrant | None:
        """The account's grant; None if it has none. Raises Permanent when no key decrypts it."""
        ...

    async def begin(
        self, platform: Platform, name: str, generation: int, sha256: str, *, lease_seconds: float, pause_seconds: float
    ) -> bool:
        """Record that a refresh begins. False if another one is under way, began lately, or has changed the generation."""
        ...

    async def save(self, platform: Platform, name: str, generation: int, grant: Grant) -> bool:
        """Store the answer as the next generation. False if the generation is not that one any more."""
        ...

    async def end(self, platform: Platform, name: str, generation: int) -> None:
        """Record that the refresh ended without new tokens. The stored ones stay."""
        ...

    async def bury(self, platform: Platform, name: str, generation: int, reason: str) -> bool:
        """Record that the platform refused this generation. False if the generation is not that one any more."""
        ...

    async def idle(self, seconds: float) -> list[tuple[Platform, str]]:
        """The accounts whose access token is older than that and not known to be dead."""
        ...


class TokenRefresher:
    """Gives the stored accounts' access tokens. One instance belongs to one event loop."""

    def __init__(
        self,
        *,
        store: GrantStore,
        oauth: Mapping[Platform, OAuth],
        clock: Clock,
        pause: float = PAUSE_SECONDS,
        own_wait: float = OWN_WAIT_SECONDS,
    ) -> None:
        """`pause`: the least number of seconds between two refreshes of one account. `own_wait`: the longest wait for one."""
        self._store = store
        self._oauth = oauth
        self._clock = clock
        self._pause = pause
        self._own_wait = own_wait
        self._running: dict[tuple[Platform, str], asyncio.Task[str]] = {}

    async def token(self, platform: Platform, name: str) -> str:
        """An access token that is valid now. Raises Disconnected when the account must be connected again, NotYet and Transient."""
        stored = await self._alive(platform, name)
        expired = stored.left_seconds <= LEEWAY_SECONDS
        life = stored.age_seconds + stored.left_seconds
        if not expired and stored.age_seconds < self._oauth[platform].renew_after(life):
            return stored.access_token
        return await self._renewed(platform, name, stored, needed=expired)

    async def renewed(self, platform: Platform, name: str, refused: str) -> str:
        """Another token than the one that the platform refused, which may be there already. Raises as `token` does."""
        stored = await self._alive(platform, name)
        if stored.access_token != refused:
            return stored.access_token
        return await self._renewed(platform, name, stored, needed=True)

    async def renew_idle(self) -> dict[str, str]:
        """Renew the grants of accounts that nothing has used for a week. Returns what failed, by `platform:name`."""
        failed = {}
        for platform, name in await self._store.idle(IDLE_SECONDS):
            try:
                stored = await self._alive(platform, name)
                await self._renewed(platform, name, stored, needed=True)
            except PhantomsError as error:
                failed[f"{platform}:{name}"] = str(error)
        return failed

    async def finish(self) -> None:
        """Wait for the refreshes that are under way. Their answers may be the only copies of tokens."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    # --- inside

    async def _alive(self, platform: Platform, name: str) -> StoredGrant:
        stored = await self._store.read(platform, name)
        if stored is None:
            why = f"{platform.title} account {name} is not connected: run `{connect_command(platform, name)}`"
            raise Disconnected(why, provider=str(platform), code="not_connected")
        if stored.dead:
            raise Disconnected(stored.reason or dead_reason(platform, name, ""), provider=str(platform), code="reconnect")
        return stored

    async def _renewed(self, platform: Platform, name: str, stored: StoredGrant, *, needed: bool) -> str:
        """The token of the next generation. Not `needed`: the present one, if there is no next one yet."""
        key = (platform, name)
        task = self._running.get(key)
        if task is None:
            # Shared by all callers of this process. A caller that is cancelled must not stop it: its answer may be the only copy.
            task = self._running[key] = asyncio.create_task(self._in_turn(platform, name, stored))
            task.add_done_callback(lambda done: self._forget(key, done))
        try:
            return await self._result_of(task, platform, name)
        except (NotYet, Transient, Permanent) as error:
            # Only a grant that is proven dead makes a token useless that still has time left.
            if needed or isinstance(error, Disconnected):
                raise
            _log.warning("the token of %s account %s was not renewed early: %s", platform, name, error)
            return stored.access_token

    async def _result_of(self, task: asyncio.Task[str], platform: Platform, name: str) -> str:
        done, _ = await asyncio.wait({task}, timeout=self._own_wait)
        if not done:
            why = f"{platform.title} account {name}: its token is still being renewed or stored"
            raise NotYet(why, retry_after=WAIT_SECONDS)
        return task.result()

    def _forget(self, key: tuple[Platform, str], done: asyncio.Task[str]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # a caller has it, unless all were cancelled

    async def _in_turn(self, platform: Platform, name: str, stored: StoredGrant) -> str:
        """Call the platform, or wait for the process that does."""
        waited = 0.0
        while True:
            limits = {"lease_seconds": LEASE_SECONDS, "pause_seconds": self._pause}
            if await self._store.begin(platform, name, stored.generation, fingerprint(stored.credential), **limits):
                return await self._call(platform, name, stored)
            current = await self._alive(platform, name)
            if current.generation != stored.generation:
                return current.access_token
            stored = current
            if not current.held or waited > WAIT_SECONDS:
                rest = max(1.0, self._pause - (current.tried_seconds or 0.0))
                why = f"{platform.title} account {name}: its token was renewed a moment ago, and is renewed again in {rest:.0f} s"
                raise NotYet(why, retry_after=rest)
            await self._clock.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS

    async def _call(self, platform: Platform, name: str, stored: StoredGrant) -> str:
        try:
            grant = await self._oauth[platform].renew(stored)
            _same_owner(platform, name, stored, grant)
        except GrantDead as error:
            hint = self._oauth[platform].why_dead(stored)
            if stored.interrupted:
                hint = "an earlier renewal was cut off before its answer was stored"
            reason = dead_reason(platform, name, f"{error}{f'; {hint}' if hint else ''}")
            if await self._store.bury(platform, name, stored.generation, reason):
                raise Disconnected(reason, provider=str(platform), code="reconnect", evidence=error.evidence) from error
            return (await self._alive(platform, name)).access_token  # another process has stored newer tokens
        except InvalidInput as error:  # the app's id or secret is not set in this process
            await self._store.end(platform, name, stored.generation)
            message = f"the token of {platform.title} account {name} cannot be renewed here: {error}"
            raise AppRefused(message, provider=str(platform), code="app_not_set") from error
        except Exception:
            await self._store.end(platform, name, stored.generation)
            raise
        if await self._save(platform, name, stored.generation, grant):
            return grant.access_token
        return (await self._alive(platform, name)).access_token

    async def _save(self, platform: Platform, name: str, generation: int, grant: Grant) -> bool:
        """Store the answer. It may be the only copy of the tokens, so this ends only when PostgreSQL has answered."""
        while True:
            try:
                return await self._store.save(platform, name, generation, grant)
            except StoreAway as error:
                _log.error("the new token of %s account %s is not stored yet: %s", platform, name, error)
                await self._clock.sleep(SAVE_AGAIN_SECONDS)


def _same_owner(platform: Platform, name: str, stored: StoredGrant, grant: Grant) -> None:
    if grant.subject is not None and stored.subject is not None and grant.subject != stored.subject:
        message = f"{platform.title} answered with the token of another owner than that of account {name}; it was not stored"
        raise Transient(message, provider=str(platform), code="other_owner")


def dead_reason(platform: Platform, name: str, said: str) -> str:
    """Why the account waits, with the command that helps."""
    why = f" ({said})" if said else ""
    return f"{platform.title} has ended its connection{why}: run `{connect_command(platform, name)}`"

"""The table of accounts: owners, token sources, and which accounts wait. `production.accounts` compares owners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.accounts import ACTIVE, Account
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.transactions import transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# Rows marked by older versions have no `state_since`.
_SINCE = "CASE WHEN state <> 'active' THEN COALESCE(state_since, updated_at) END AS state_since"
_COLUMNS = f"""platform, name, gateway, token_ref, subject, label, token_sha256, state, reason, {_SINCE}, scopes, connected_at,
    CASE WHEN refresh_token IS NULL THEN access_expires_at ELSE refresh_expires_at END AS ends_at,
    COALESCE(dead_generation = generation, false) AS dead"""
_PUT = text(
    """
    INSERT INTO phantoms.accounts AS a (platform, name, token_ref) VALUES (:platform, :name, :place)
    ON CONFLICT (platform, name, gateway) DO UPDATE SET updated_at = clock_timestamp(),
        -- A connected account needs no token in channels.yaml, but one that is named there is the one to use.
        token_ref = COALESCE(excluded.token_ref, CASE WHEN a.access_token IS NOT NULL THEN 'stored' END)
    WHERE a.token_ref IS DISTINCT FROM COALESCE(excluded.token_ref, CASE WHEN a.access_token IS NOT NULL THEN 'stored' END)
    """
)
_WHICH = "platform = :platform AND name = :name AND gateway = :gateway"
_SELECT_ONE = text(f"SELECT {_COLUMNS} FROM phantoms.accounts WHERE {_WHICH}")
_ALL = text(f"SELECT {_COLUMNS} FROM phantoms.accounts ORDER BY platform, name, gateway")
# A post that a gateway publishes has a second row, with the owner as the gateway names it.
_OWNERS = text(
    """
    SELECT DISTINCT ON (platform) platform, label FROM phantoms.accounts
    WHERE (platform, name) IN (SELECT * FROM unnest(CAST(:platforms AS text[]), CAST(:names AS text[]))) AND label IS NOT NULL
    ORDER BY platform, gateway
    """
)
_MAY_ASK = text(
    f"""
    UPDATE phantoms.accounts SET asked_at = clock_timestamp()
    WHERE {_WHICH}
        AND (asked_at IS NULL OR asked_at <= clock_timestamp() - make_interval(secs => greatest(CAST(:seconds AS float8),
            least(CAST(:longest AS float8), extract(epoch FROM clock_timestamp() - COALESCE(state_since, updated_at)) / 12))))
    RETURNING id
    """
)
_CONFIRM = text(
    """
    INSERT INTO phantoms.accounts (platform, name, gateway, subject, label, token_sha256)
    VALUES (:platform, :name, :gateway, :subject, :label, :token)
    ON CONFLICT (platform, name, gateway) DO UPDATE SET subject = excluded.subject, label = excluded.label,
        token_sha256 = excluded.token_sha256, state = 'active', reason = NULL, state_since = NULL, asked_at = NULL,
        updated_at = clock_timestamp()
    """
)
_MARK = text(
    """
    INSERT INTO phantoms.accounts (platform, name, gateway, token_sha256, state, reason, state_since, asked_at)
    VALUES (:platform, :name, :gateway, :token, :state, :reason, clock_timestamp(), clock_timestamp())
    ON CONFLICT (platform, name, gateway) DO UPDATE SET token_sha256 = excluded.token_sha256, state = excluded.state,
        reason = excluded.reason, asked_at = clock_timestamp(), updated_at = clock_timestamp(),
        -- The time when it began to wait, not of the last check, so that one problem causes one alert.
        state_since = CASE WHEN accounts.state = 'active' THEN clock_timestamp()
            ELSE COALESCE(accounts.state_since, accounts.updated_at) END
    -- What a call with the tokens of an earlier connection met says nothing about this one.
    WHERE accounts.connected_at IS NOT DISTINCT FROM :connected_at
    RETURNING id
    """
)
# Locked in the same order as claims lock them. A deadlock would lose the tokens of a person who connects the account.
_WAKE = text(
    """
    WITH waiting AS MATERIALIZED (
        SELECT video_id, stage FROM phantoms.stages
        WHERE stage = :stage AND state = 'deferred' AND starts_with(reason, :waiting) ORDER BY video_id FOR UPDATE
    )
    UPDATE phantoms.stages s SET retry_at = clock_timestamp(), updated_at = clock_timestamp()
    FROM waiting w WHERE s.video_id = w.video_id AND s.stage = w.stage
    """
)
# Only accounts that a channel names now, because a renamed account has the same owner under its old name.
_ALSO = text(
    """
    SELECT a.name FROM phantoms.accounts a
    WHERE a.platform = :platform AND a.subject = :subject AND a.gateway = :gateway AND a.name <> :name AND EXISTS (
        SELECT FROM phantoms.channels c WHERE c.config->'accounts'->>:platform = a.name)
    ORDER BY a.name LIMIT 1
    """
)
_TRY_SOON = text(
    "UPDATE phantoms.accounts SET asked_at = NULL WHERE platform = :platform AND name = :name AND state = 'barred' RETURNING id"
)
_CONNECTED = text("SELECT DISTINCT platform FROM phantoms.accounts WHERE token_ref IS NOT NULL OR connected_at IS NOT NULL")
# Tokens and posts that are not out yet need the account.
_REMOVE = text(
    """
    DELETE FROM phantoms.accounts a WHERE a.platform = :platform AND a.name = :name
        AND NOT EXISTS (SELECT FROM phantoms.accounts o WHERE o.platform = a.platform AND o.name = a.name
            AND o.access_token IS NOT NULL)
        AND NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.platform = a.platform AND p.account = a.name
            AND p.state NOT IN ('published', 'confirmed', 'failed'))
    RETURNING id
    """
)
_FORGET = text(
    """
    UPDATE phantoms.accounts SET subject = NULL, label = NULL, token_sha256 = NULL, state = 'active', reason = NULL,
        state_since = NULL, asked_at = NULL, updated_at = clock_timestamp()
    WHERE platform = :platform AND name = :name RETURNING id
    """
)


class PostgresAccounts:
    """Implements `production.accounts.AccountStore`. One instance belongs to one event loop.

    `gateway`: the provider that publishes for the accounts. Who owns an account there, and who owns it at its platform, are two
    facts with a row each: neither tells about the other.
    """

    def __init__(self, engine: AsyncEngine, gateway: str = "") -> None:
        self._engine = engine
        self._gateway = gateway

    def at(self, gateway: str) -> PostgresAccounts:
        """The accounts as that gateway knows them."""
        return PostgresAccounts(self._engine, gateway)

    async def look(self, platform: Platform, name: str) -> Account:
        """See the port."""

        async def work(connection: AsyncConnection) -> RowMapping | None:
            return (await connection.execute(_SELECT_ONE, _key(empty))).mappings().first()

        empty = Account(platform, name, gateway=self._gateway)
        row = await transaction(self._engine, work)
        return empty if row is None else _account(row)

    async def may_ask(self, platform: Platform, name: str, *, every_seconds: float, longest_seconds: float) -> bool:
        """See the port."""

        async def work(connection: AsyncConnection) -> bool:
            values = {"seconds": every_seconds, "longest": longest_seconds}
            key = _key(Account(platform, name, gateway=self._gateway))
            return (await connection.execute(_MAY_ASK, {**key, **values})).first() is not None

        return await transaction(self._engine, work)

    async def confirm(self, account: Account, identity: AccountIdentity, token_sha256: str) -> None:
        """See the port."""

        async def work(connection: AsyncConnection) -> None:
            values = {"subject": identity.subject, "label": identity.label, "token": token_sha256}
            await connection.execute(_CONFIRM, {**_key(account), **values})
            if account.state != ACTIVE:
                await connection.execute(_WAKE, _waiting(account))
                await connection.execute(text(NOTIFY))

        await transaction(self._engine, work)

    async def mark(self, account: Account, state: str, reason: str, token_sha256: str | None) -> bool:
        """See the port."""

        async def work(connection: AsyncConnection) -> bool:
            values = {"state": state, "reason": reason, "token": token_sha256, "connected_at": account.connected_at}
            return (await connection.execute(_MARK, {**_key(account), **values})).first() is not None

        return await transaction(self._engine, work)

    async def other_account(self, platform: Platform, subject: str, name: str) -> str | None:
        """See the port."""

        async def work(connection: AsyncConnection) -> str | None:
            key = _key(Account(platform, name, gateway=self._gateway))
            return (await connection.execute(_ALSO, {**key, "subject": subject})).scalar()

        return await transaction(self._engine, work)

    async def token_sources(self) -> dict[tuple[str, str], str]:
        """The token sources of accounts that have their own, by platform and name."""

        async def work(connection: AsyncConnection) -> list[RowMapping]:
            return list((await connection.execute(_ALL)).mappings())

        rows = await transaction(self._engine, work)
        return {(row["platform"], row["name"]): row["token_ref"] for row in rows if row["token_ref"]}

    async def connected_platforms(self) -> frozenset[str]:
        """The platforms where an account has its own token or was ever connected. The sandbox does not answer for them."""

        async def work(connection: AsyncConnection) -> frozenset[str]:
            return frozenset((await connection.execute(_CONNECTED)).scalars())

        return await transaction(self._engine, work)


class Accounts:
    """The table of accounts for commands and sensors, synchronous."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Account]:
        """Every account that a channel ever named or a post used."""
        with reading(self._engine).connect() as connection:
            return listed(connection)

    def owners(self, names: Mapping[Platform, str]) -> dict[Platform, str]:
        """The names that the owners of these accounts have at their platforms, as far as they are known."""
        asked = {"platforms": [str(platform) for platform in names], "names": list(names.values())}
        with reading(self._engine).connect() as connection:
            return {Platform(row.platform): row.label for row in connection.execute(_OWNERS, asked)}

    def connected_platforms(self) -> frozenset[str]:
        """See `PostgresAccounts.connected_platforms`."""
        with reading(self._engine).connect() as connection:
            return frozenset(connection.execute(_CONNECTED).scalars())

    def waiting(self) -> list[Account]:
        """The accounts whose posts wait."""
        return [account for account in self.all() if account.state != ACTIVE]

    def try_soon(self, platform: Platform, name: str) -> None:
        """Let a post of a barred account try now, because a person may have ended what barred it."""
        account = Account(platform, name)
        with self._engine.begin() as connection:
            if connection.execute(_TRY_SOON, _key(account)).first() is not None:
                wake_posts(connection, account)

    def forget(self, platform: Platform, name: str, *, named: bool = True) -> bool:
        """Forget the owner of the account, so that the next check accepts any owner. Raises NotFound.

        `named`: whether a channel names it. If not, the account is removed, unless it has stored tokens or a post that is not out
        yet. Returns whether it was removed.
        """
        account = Account(platform, name)
        with self._engine.begin() as connection:
            if not named and connection.execute(_REMOVE, _key(account)).first() is not None:
                return True
            if connection.execute(_FORGET, _key(account)).first() is None:
                raise NotFound(f"no account {platform}:{name}; `phantoms accounts` lists them")
            wake_posts(connection, account)
        return False


def wake_posts(connection: Connection, account: Account) -> None:
    """Make the posts due that wait for the account."""
    connection.execute(_WAKE, _waiting(account))
    connection.execute(text(NOTIFY))


def listed(connection: Connection) -> list[Account]:
    """Every account in the table."""
    return [_account(row) for row in connection.execute(_ALL).mappings()]


def put_token_sources(connection: Connection, places: Mapping[tuple[Platform, str], str | None]) -> None:
    """Store the token sources of these accounts. Other accounts stay, because their posts may be unfinished."""
    rows = [{"platform": str(platform), "name": name, "place": place} for (platform, name), place in sorted(places.items())]
    if rows:
        connection.execute(_PUT, rows)


def _key(account: Account) -> dict[str, Any]:
    return {"platform": str(account.platform), "name": account.name, "gateway": account.gateway}


def _waiting(account: Account) -> dict[str, str]:
    # The beginning of the text that `production.accounts.waiting` returns.
    return {"stage": f"{account.platform}/post", "waiting": f"{account.platform} account {account.name} waits: "}


def _account(row: RowMapping) -> Account:
    return Account(
        platform=Platform(row["platform"]),
        name=row["name"],
        gateway=row["gateway"],
        token_source=row["token_ref"],
        subject=row["subject"],
        label=row["label"],
        token_sha256=row["token_sha256"],
        state=row["state"],
        reason=row["reason"],
        since=row["state_since"],
        scopes=tuple(row["scopes"]),
        connected_at=row["connected_at"],
        ends_at=row["ends_at"],
        dead=row["dead"],
    )

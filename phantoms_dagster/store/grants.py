"""The stored tokens of accounts: columns of the table of accounts, encrypted by the vault.

`production.token_refresh` explains the order of these writes. Each changes the row only if its generation is the expected one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, RowMapping, TextClause, text

from phantoms_dagster.domain.accounts import Account, fingerprint
from phantoms_dagster.domain.errors import InvalidInput, NotFound, Permanent
from phantoms_dagster.domain.grants import STORED, Grant, StoredGrant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.store.accounts import wake_posts
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.transactions import persons_transaction, transaction
from phantoms_dagster.store.vault import Vault, WrongKey

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_READ = text(
    """
    SELECT platform, name, generation, access_token, refresh_token, subject, reason, refresh_sha256,
        EXTRACT(epoch FROM clock_timestamp() - access_issued_at)::float8 AS age,
        EXTRACT(epoch FROM access_expires_at - clock_timestamp())::float8 AS remaining,
        EXTRACT(epoch FROM clock_timestamp() - connected_at)::float8 AS connected,
        EXTRACT(epoch FROM clock_timestamp() - refreshed_at)::float8 AS tried,
        COALESCE(refresh_until > clock_timestamp(), false) AS held,
        COALESCE(dead_generation = generation, false) AS dead
    FROM phantoms.accounts WHERE platform = :platform AND name = :name AND gateway = '' AND access_token IS NOT NULL
    """
)
_BEGIN = text(
    """
    UPDATE phantoms.accounts SET refresh_until = clock_timestamp() + make_interval(secs => :lease), refresh_sha256 = :sha256,
        refreshed_at = clock_timestamp()
    WHERE platform = :platform AND name = :name AND gateway = '' AND generation = :generation AND access_token IS NOT NULL
        AND dead_generation IS DISTINCT FROM generation AND (refresh_until IS NULL OR refresh_until <= clock_timestamp())
        AND (refreshed_at IS NULL OR refreshed_at <= clock_timestamp() - make_interval(secs => :pause))
    RETURNING id
    """
)
_SAVE = text(
    """
    UPDATE phantoms.accounts SET access_token = :access, refresh_token = COALESCE(:refresh, refresh_token),
        access_issued_at = clock_timestamp(), access_expires_at = clock_timestamp() + make_interval(secs => :life),
        refresh_expires_at = COALESCE(clock_timestamp() + make_interval(secs => :refresh_life), refresh_expires_at),
        scopes = COALESCE(CAST(:scopes AS text[]), scopes), generation = generation + 1,
        refresh_until = NULL, refresh_sha256 = NULL,
        -- A process that was stopped for a while may store its answer after another one was refused with the old token.
        state = CASE WHEN dead_generation = generation THEN 'active' ELSE state END,
        reason = CASE WHEN dead_generation = generation THEN NULL ELSE reason END,
        dead_generation = NULL, updated_at = clock_timestamp()
    WHERE platform = :platform AND name = :name AND gateway = '' AND generation = :generation AND access_token IS NOT NULL
    RETURNING id
    """
)
_END = text(
    """
    UPDATE phantoms.accounts SET refresh_until = NULL, refresh_sha256 = NULL
    WHERE platform = :platform AND name = :name AND gateway = '' AND generation = :generation
    """
)
_BURY = text(
    """
    UPDATE phantoms.accounts SET dead_generation = generation, reason = :reason, refresh_until = NULL, refresh_sha256 = NULL,
        state_since = CASE WHEN state = 'active' THEN clock_timestamp() ELSE COALESCE(state_since, updated_at) END,
        state = 'disconnected', updated_at = clock_timestamp()
    WHERE platform = :platform AND name = :name AND gateway = '' AND generation = :generation
    RETURNING id
    """
)
_IDLE = text(
    """
    SELECT platform, name FROM phantoms.accounts
    WHERE token_ref = 'stored' AND access_token IS NOT NULL AND dead_generation IS DISTINCT FROM generation
        AND access_issued_at <= clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY access_issued_at
    """
)
_CONNECT = text(
    """
    INSERT INTO phantoms.accounts AS a (platform, name, token_ref, subject, label, token_sha256, access_token, refresh_token,
        access_issued_at, access_expires_at, refresh_expires_at, scopes, generation, connected_at)
    VALUES (:platform, :name, :source, :subject, :label, :sha256, :access, :refresh, clock_timestamp(),
        clock_timestamp() + make_interval(secs => :life), clock_timestamp() + make_interval(secs => :refresh_life),
        COALESCE(CAST(:scopes AS text[]), '{}'),
        -- In milliseconds. A number that begins again would let a late answer into an account that was removed meanwhile.
        CAST(EXTRACT(epoch FROM clock_timestamp()) * 1000 AS bigint), clock_timestamp())
    ON CONFLICT (platform, name, gateway) DO UPDATE SET token_ref = excluded.token_ref,
        subject = excluded.subject, label = excluded.label,
        token_sha256 = excluded.token_sha256, access_token = excluded.access_token, refresh_token = excluded.refresh_token,
        access_issued_at = excluded.access_issued_at, access_expires_at = excluded.access_expires_at,
        refresh_expires_at = excluded.refresh_expires_at, scopes = excluded.scopes,
        generation = GREATEST(a.generation + 1, excluded.generation), connected_at = excluded.connected_at, dead_generation = NULL,
        refreshed_at = NULL, refresh_until = NULL,
        refresh_sha256 = NULL, state = 'active', reason = NULL, state_since = NULL, asked_at = NULL, updated_at = clock_timestamp()
    WHERE a.subject IS NULL OR a.subject = excluded.subject
    RETURNING id
    """
)
_DISCONNECT = text(
    """
    UPDATE phantoms.accounts SET token_ref = NULL, access_token = NULL, refresh_token = NULL, access_issued_at = NULL,
        access_expires_at = NULL, refresh_expires_at = NULL, scopes = '{}', generation = generation + 1, dead_generation = NULL,
        refreshed_at = NULL, refresh_until = NULL, refresh_sha256 = NULL, token_sha256 = NULL, state = 'active', reason = NULL,
        state_since = NULL, asked_at = NULL, updated_at = clock_timestamp()
    WHERE platform = :platform AND name = :name AND gateway = '' AND generation = :generation AND access_token IS NOT NULL
    RETURNING id
    """
)
_ANY = text("SELECT FROM phantoms.accounts WHERE access_token IS NOT NULL LIMIT 1")
_SEALED = text(
    "SELECT id, access_token, refresh_token FROM phantoms.accounts WHERE access_token IS NOT NULL ORDER BY id FOR UPDATE"
)
_RESEAL = text("UPDATE phantoms.accounts SET access_token = :access, refresh_token = :refresh WHERE id = :id")


class PostgresGrants:
    """Implements `production.token_refresh.GrantStore`. One instance belongs to one event loop."""

    def __init__(self, engine: AsyncEngine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault

    async def read(self, platform: Platform, name: str) -> StoredGrant | None:
        """See the port."""

        async def work(connection: AsyncConnection) -> RowMapping | None:
            return (await connection.execute(_READ, _key(platform, name))).mappings().first()

        row = await transaction(self._engine, work)
        return None if row is None else _stored(row, self._vault)

    async def begin(
        self, platform: Platform, name: str, generation: int, sha256: str, *, lease_seconds: float, pause_seconds: float
    ) -> bool:
        """See the port."""
        values = {"generation": generation, "sha256": sha256, "lease": lease_seconds, "pause": pause_seconds}
        return await self._changed(_BEGIN, platform, name, values)

    async def save(self, platform: Platform, name: str, generation: int, grant: Grant) -> bool:
        """See the port."""
        return await self._changed(_SAVE, platform, name, {"generation": generation, **_sealed(grant, self._vault)})

    async def end(self, platform: Platform, name: str, generation: int) -> None:
        """See the port."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_END, {**_key(platform, name), "generation": generation})

        await transaction(self._engine, work)

    async def bury(self, platform: Platform, name: str, generation: int, reason: str) -> bool:
        """See the port."""
        return await self._changed(_BURY, platform, name, {"generation": generation, "reason": reason})

    async def idle(self, seconds: float) -> list[tuple[Platform, str]]:
        """See the port."""

        async def work(connection: AsyncConnection) -> list[RowMapping]:
            return list((await connection.execute(_IDLE, {"seconds": seconds})).mappings())

        return [(Platform(row["platform"]), row["name"]) for row in await transaction(self._engine, work)]

    async def _changed(self, statement: TextClause, platform: Platform, name: str, values: Mapping[str, Any]) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(statement, {**_key(platform, name), **values})).first() is not None

        return await transaction(self._engine, work)


class Grants:
    """The stored tokens for commands, synchronous."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault

    def read(self, platform: Platform, name: str) -> StoredGrant:
        """The account's tokens. Raises NotFound, and Permanent when no key decrypts them."""
        return _stored(self._row(platform, name), self._vault)

    def generation(self, platform: Platform, name: str) -> int:
        """The generation of the account's tokens, whether a key decrypts them or not. Raises NotFound."""
        found: int = self._row(platform, name)["generation"]
        return found

    def _row(self, platform: Platform, name: str) -> RowMapping:
        with reading(self._engine).connect() as connection:
            row = connection.execute(_READ, _key(platform, name)).mappings().first()
        if row is None:
            raise NotFound(
                f"{platform}:{name} has no stored tokens; `phantoms accounts` lists the accounts and where their tokens are"
            )
        return row

    def connect(self, platform: Platform, name: str, grant: Grant, owner: AccountIdentity) -> None:
        """Store the tokens of a newly connected account. Its waiting posts become due. Raises InvalidInput for another owner."""
        values = {
            "source": STORED,
            "subject": owner.subject,
            "label": owner.label,
            "sha256": fingerprint(grant.access_token),
            **_sealed(grant, self._vault),
        }

        def work(connection: Connection) -> None:
            if connection.execute(_CONNECT, {**_key(platform, name), **values}).first() is None:
                message = f"{platform}:{name} has another owner than {owner.label} ({owner.subject}); its tokens were not replaced"
                raise InvalidInput(f"{message}. To change the owner: phantoms accounts --forget {platform}:{name}")
            wake_posts(connection, Account(platform, name))

        persons_transaction(self._engine, work)

    def disconnect(self, platform: Platform, name: str, generation: int) -> bool:
        """Delete the account's tokens. Its posts and its owner stay. False if the generation is not that one any more."""
        with self._engine.begin() as connection:
            values = {**_key(platform, name), "generation": generation}
            return connection.execute(_DISCONNECT, values).first() is not None

    def reencrypt(self) -> int:
        """Encrypt all tokens with the newest key, in one transaction. Returns the number of accounts. Raises WrongKey."""
        with self._engine.begin() as connection:
            rows = connection.execute(_SEALED).mappings().all()
            for row in rows:
                access, refresh = bytes(row["access_token"]), row["refresh_token"]
                sealed = {"access": self._vault.renew(access), "refresh": refresh and self._vault.renew(bytes(refresh))}
                connection.execute(_RESEAL, {"id": row["id"], **sealed})
        return len(rows)


def any_stored(engine: Engine) -> bool:
    """Whether an account has stored tokens."""
    with reading(engine).connect() as connection:
        return connection.execute(_ANY).first() is not None


def _key(platform: Platform, name: str) -> dict[str, Any]:
    return {"platform": str(platform), "name": name}


def _sealed(grant: Grant, vault: Vault) -> dict[str, Any]:
    return {
        "access": vault.encrypt(grant.access_token),
        "refresh": None if grant.refresh_token is None else vault.encrypt(grant.refresh_token),
        "life": grant.life_seconds,
        "refresh_life": grant.refresh_life_seconds,
        "scopes": None if grant.scopes is None else list(grant.scopes),
    }


def _stored(row: RowMapping, vault: Vault) -> StoredGrant:
    try:
        access = vault.decrypt(bytes(row["access_token"]))
        refresh = None if row["refresh_token"] is None else vault.decrypt(bytes(row["refresh_token"]))
    except WrongKey as error:
        platform = Platform(row["platform"])
        message = f"the tokens of {platform.title} account {row['name']} cannot be read: {error}"
        raise Permanent(message, provider=str(platform), code="wrong_key") from error
    return StoredGrant(
        generation=row["generation"],
        access_token=access,
        refresh_token=refresh,
        subject=row["subject"],
        age_seconds=row["age"],
        left_seconds=row["remaining"],
        connected_seconds=row["connected"],
        tried_seconds=row["tried"],
        held=row["held"],
        interrupted=not row["held"] and row["refresh_sha256"] == fingerprint(refresh or access),
        dead=row["dead"],
        reason=row["reason"],
    )

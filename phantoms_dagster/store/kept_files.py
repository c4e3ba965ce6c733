"""Whether any stage has stored files. This tells an empty mount point from a new media folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# Indexed by stage and state; the first row is enough.
_ANY = text("SELECT EXISTS (SELECT 1 FROM phantoms.stages WHERE stage IN ('voiceover', 'rendered_video') AND state = 'done')")


async def files_are_known(engine: AsyncEngine) -> bool:
    """Whether any stage has stored a file. Raises StoreAway."""

    async def work(connection: AsyncConnection) -> bool:
        return bool((await connection.execute(_ANY)).scalar())

    return await transaction(statements(engine), work)


def files_were_stored(engine: Engine) -> bool:
    """The same, for commands."""
    with engine.connect() as connection:
        return bool(connection.execute(_ANY).scalar())

"""The system clock, corrected by the database's: times in its tables must agree even if the machines' clocks do not."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_NOW = text("SELECT clock_timestamp()")
# How long a correction is used, in seconds. A good clock drifts by less than a tenth of a second in that time.
AGREED_SECONDS = 300.0


class SystemClock:
    """Implements `ports.Clock`. It is this machine's clock until it has read the database's."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self._agreed_at: float | None = None

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC) + self._ahead

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        await asyncio.sleep(seconds)

    def agree(self, connection: Connection) -> None:
        """Adopt the database's time."""
        before = datetime.now(UTC)
        theirs: datetime = connection.execute(_NOW).scalar_one()
        after = datetime.now(UTC)
        self._ahead, self._agreed_at = theirs - (before + (after - before) / 2), time.monotonic()

    def agree_now_and_then(self, engine: Engine) -> None:
        """`agree`, unless that was done within the last five minutes."""
        if self._agreed_at is None or time.monotonic() - self._agreed_at > AGREED_SECONDS:
            with engine.connect() as connection:
                self.agree(connection)

    async def agree_with(self, engine: AsyncEngine) -> None:
        """`agree` on an event loop. Raises StoreAway."""

        async def work(connection: AsyncConnection) -> None:
            await connection.run_sync(self.agree)

        await transaction(statements(engine), work)

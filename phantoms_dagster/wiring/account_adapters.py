"""Wrappers that make adapters work per account: calls count for its pools and breaker, and a bad token stops the account once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from phantoms_dagster.domain.errors import Barred, Disconnected
from phantoms_dagster.domain.ports import (
    ExtraAdder,
    ExtraJob,
    FoundPost,
    LateIds,
    MetricsPage,
    MetricsReader,
    Publisher,
    PublishJob,
)
from phantoms_dagster.domain.publication import PublishVerbs
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.production.accounts import AccountGate
from phantoms_dagster.resilience.limits import calling_for


class AccountPublisher:
    """A publisher whose calls count for the account's pools and breaker. Posts wait while the account's token is bad."""

    def __init__(self, publisher: Publisher, gate: AccountGate) -> None:
        self._publisher = publisher
        self._gate = gate
        self.provider = publisher.provider
        self.platform = publisher.platform
        self.sandbox = publisher.sandbox
        self.account_first = publisher.account_first

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[PublishVerbs]:
        """See the port."""
        with calling_for(job.account):
            entered = await self._gate.enter(job.platform, job.account)
            try:
                async with self._publisher.verbs(job) as verbs:
                    yield verbs
            except Disconnected as error:
                raise await self._gate.refused(job.platform, job.account, error, entered.account) from error
            if entered.probes:
                await self._gate.post_succeeded(job.platform, job.account)


class AccountLateIds:
    """A `LateIds` whose calls count for the account's pools and breaker."""

    def __init__(self, finder: LateIds) -> None:
        self._finder = finder
        self.provider = finder.provider
        self.platform = finder.platform
        self.sandbox = finder.sandbox

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        """See the port."""
        with calling_for(account):
            return await self._finder.public_id(account, handle, last=last)


class AccountExtras:
    """An `ExtraAdder` whose calls count for the account's pools and breaker. A dead token stops the account."""

    def __init__(self, adder: ExtraAdder, gate: AccountGate) -> None:
        self._adder = adder
        self._gate = gate
        self.provider = adder.provider
        self.platform = adder.platform
        self.sandbox = adder.sandbox

    async def add(self, extra: ExtraJob) -> str:
        """See the port."""
        before = await self._gate.look(self.platform, extra.account)
        with calling_for(extra.account):
            try:
                return await self._adder.add(extra)
            except Disconnected as error:
                if not isinstance(error, Barred):  # an account that may not add captions may still post
                    await self._gate.dead(self.platform, extra.account, error, before)
                raise


class AccountMetricsReader:
    """A metrics reader whose calls count for the account's pools and breaker. A dead token stops the account."""

    def __init__(self, reader: MetricsReader, gate: AccountGate) -> None:
        self._reader = reader
        self._gate = gate
        self.provider = reader.provider
        self.platform = reader.platform

    async def pages(self, account: str, remote_ids: Sequence[str], *, without: Collection[str] = ()) -> AsyncIterator[MetricsPage]:
        """See the port."""
        pages = self._reader.pages(account, remote_ids, without=without)
        before = await self._gate.look(self.platform, account)
        while True:
            with calling_for(account):  # not around the yield: the account would leak into the caller's context
                try:
                    page = await anext(pages, None)
                except Disconnected as error:
                    if not isinstance(error, Barred):  # an account that may not read metrics may still post
                        await self._gate.dead(self.platform, account, error, before)
                    raise
            if page is None:
                return
            yield page

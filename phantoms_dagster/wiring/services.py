"""`Services`: everything that one process needs, created from its settings on first use.

It is synchronous, for commands and sensors; `pipeline` gives the asynchronous part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from phantoms_dagster import settings as settings_module
from phantoms_dagster.domain import channels as channels_file
from phantoms_dagster.domain.accounts import Account, check_tokens, token_sources
from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel, Platform, StageOutput
from phantoms_dagster.domain.outlook import Outages
from phantoms_dagster.domain.posting_slots import DayLimit
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster.store.catalogue import Catalogue
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.planning import Planning
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster.store.stored import output_of
from phantoms_dagster.wiring.channels_text import channels_text
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints, named_by, routes_of, wanted_privacy
from phantoms_dagster.wiring.media import MediaFiles
from phantoms_dagster.wiring.providers import channel_problem
from phantoms_dagster.wiring.up_lock import nothing_runs

# Commands run for about a second, so methods import what only few commands need (see `test_light_commands`).
if TYPE_CHECKING:
    from phantoms_dagster.production.inbox import InboxReport
    from phantoms_dagster.store.booked_posts import BookedPosts
    from phantoms_dagster.store.booking_changes import BookingChanges
    from phantoms_dagster.store.brief_edits import BriefEdits
    from phantoms_dagster.store.calendar import Calendar
    from phantoms_dagster.store.calendar_feeds import CalendarFeeds
    from phantoms_dagster.store.guest_links import GuestLinks
    from phantoms_dagster.store.pending import PendingDecisions
    from phantoms_dagster.store.performance.tables import PerformanceTables
    from phantoms_dagster.store.retrying import Retrying
    from phantoms_dagster.store.text_edits import TextEdits
    from phantoms_dagster.wiring.pipeline import Pipeline


class Services:
    """Everything that one process needs, created from its settings on first use."""

    def __init__(self, settings: Settings, *, connections: int = 4, overflow: int = 0, max_wait: float | None = None) -> None:
        self.settings = settings
        self._max_wait = max_wait
        self._connections = connections
        self._overflow = overflow
        self.endpoints = Endpoints(settings, self._connected, self._named)
        self.clock = SystemClock()
        self._known_connected: set[str] | None = None
        self._opened = AsyncExitStack()
        self._pipeline: Pipeline | None = None

    @classmethod
    def from_environment(cls) -> Services:
        """The services for the settings in this process's environment."""
        return cls(settings_module.load())

    # --- the synchronous side

    @property
    def database_url(self) -> str:
        """PostgreSQL's URL. Raises InvalidInput when there is none."""
        if self.settings.database.url is None:
            raise nothing_runs(self.settings, "database")
        return self.settings.database.url.get_secret_value()

    @cached_property
    def engine(self) -> Engine:
        """The database engine for commands, sensors and pages."""
        return engine(self.database_url, pool_size=self._connections, overflow=self._overflow, max_wait=self._max_wait)

    @cached_property
    def media_files(self) -> MediaFiles:
        """Read-only access to the media store."""
        return MediaFiles(self.settings)

    def channels(self) -> dict[str, Channel]:
        """The channels in channels.yaml, or the default ones without such a file. Raises InvalidInput.

        They are checked completely here, before a brief is accepted and a script is paid for.
        """
        found = self._channels()
        variables = [name for name in Platform if name.spec.remote and self.endpoints.secret(str(name)) is not None]
        if self.settings.sandbox.mode != "on":
            sources = token_sources(found.values())
            try:
                check_tokens(sources, variables)
            except InvalidInput:
                connected = self._connected_accounts()
                check_tokens({key: source for key, source in sources.items() if key not in connected}, variables)
        return found

    def routes(self) -> dict[tuple[Platform, str], str]:
        """The route of each account's posts, where it is not the usual one. Raises InvalidInput."""
        return routes_of(self._channels().values())

    def account_sources(self, *, database: bool = True) -> dict[tuple[Platform, str], str | None]:
        """Where the token of each account of the channels is. Raises InvalidInput when channels.yaml cannot be used.

        Without `database` only the file is read, because PostgreSQL does not answer or is not set up.
        """
        if not database:
            return token_sources(self._channels().values())
        connected = self._connected_accounts()
        sources = token_sources(self.channels().values())
        return {key: source or (connected[key].token_source if key in connected else None) for key, source in sources.items()}

    def _connected_accounts(self) -> dict[tuple[Platform, str], Account]:
        """The accounts that a person connected. They need no token in channels.yaml."""
        if self.settings.database.url is None:
            return {}
        try:
            return {(a.platform, a.name): a for a in Accounts(self.engine).all() if a.connected_at is not None}
        except ProgrammingError:
            return {}  # there is no table yet, so nobody has connected an account

    def _connected(self) -> set[str]:
        """The platforms on which an account has its own token: from the table, or from the file while there is no table."""
        try:
            if self.settings.database.url is not None:
                self._known_connected = set(Accounts(self.engine).connected_platforms())
                return self._known_connected
        except ProgrammingError:
            pass  # the table does not exist yet
        except OperationalError:
            if self._known_connected is None:
                raise
            return self._known_connected  # an outage of PostgreSQL connects and disconnects nothing
        return {str(platform) for channel in self._channels().values() for platform in channel.tokens}

    def _named(self) -> set[str]:
        """The platforms that channels name, and their gateways."""
        return named_by(self._channels().values())

    def _channels(self) -> dict[str, Channel]:
        content = channels_text(self.settings)
        if content is None:
            return channels_file.parse(channels_file.default_text(), name="the default channels.yaml")
        return channels_file.parse(content, name=str(self.settings.channels_path), check=channel_problem(self.settings))

    def take_channels(self) -> None:
        """Import the current channels.yaml, if this machine has one. Raises InvalidInput when it cannot be used."""
        if channels_text(self.settings) is not None:
            self.catalogue().put_channels(self.channels().values())

    def catalogue(self) -> Catalogue:
        """The catalogue of videos."""
        return Catalogue(self.engine)

    def decisions(self) -> Decisions:
        """The reviewers' decisions."""
        return Decisions(self.engine, wanted_privacy(self.settings), sandboxed=self._sandboxed, limits=self._post_limits)

    def calendar(self) -> Calendar:
        """The reader of the calendar."""
        from phantoms_dagster.store.calendar import Calendar  # noqa: PLC0415

        return Calendar(self.engine)

    def calendar_feeds(self) -> CalendarFeeds:
        """The addresses at which the calendar can be read without logging in."""
        from phantoms_dagster.store.calendar_feeds import CalendarFeeds  # noqa: PLC0415

        return CalendarFeeds(self.engine)

    def booked_posts(self) -> BookedPosts:
        """The reader of bookings, missed slots and free ones."""
        from phantoms_dagster.store.booked_posts import BookedPosts  # noqa: PLC0415

        return BookedPosts(self.engine, self._post_limits)

    def booking_changes(self) -> BookingChanges:
        """What people change about bookings."""
        from phantoms_dagster.store.booking_changes import BookingChanges  # noqa: PLC0415

        return BookingChanges(self.engine, self._post_limits)

    def _sandboxed(self, platform: Platform) -> bool:
        mode = self.settings.sandbox.mode
        return mode == "on" or (mode == "auto" and self.endpoints.missing(str(platform)))

    def _post_limits(self) -> Mapping[Platform, Sequence[DayLimit]]:
        from phantoms_dagster.wiring.pool_limits import post_limits  # noqa: PLC0415

        return post_limits(self.settings)

    def pending_decisions(self) -> PendingDecisions:
        """The decisions that can still be undone."""
        from phantoms_dagster.store.pending import PendingDecisions  # noqa: PLC0415

        window = timedelta(seconds=self.settings.desk.undo_seconds)
        return PendingDecisions(self.engine, self.decisions(), window=window)

    def guest_links(self) -> GuestLinks:
        """The links with which guests decide."""
        from phantoms_dagster.store.guest_links import GuestLinks  # noqa: PLC0415

        return GuestLinks(self.engine, self.decisions(), self.pending_decisions())

    def retrying(self) -> Retrying:
        """Retries of videos, with the price of a render."""
        from phantoms_dagster.store.retrying import Retrying  # noqa: PLC0415

        renderer = self.endpoints.renderer
        price = PROVIDERS[renderer].usd_per_minute
        return Retrying(self.engine, price_per_minute=Decimal(str(self.settings.of(renderer, price)) if price else 0))

    def brief_edits(self) -> BriefEdits:
        """The editor of stored briefs."""
        from phantoms_dagster.store.brief_edits import BriefEdits  # noqa: PLC0415

        return BriefEdits(self.engine)

    def text_edits(self) -> TextEdits:
        """The editor of the texts of rendered videos."""
        from phantoms_dagster.store.text_edits import TextEdits  # noqa: PLC0415

        return TextEdits(self.engine, self.decisions())

    def attention(self) -> AttentionBoard:
        """What waits for a person according to the tables. `waits_for_people` returns everything."""
        return AttentionBoard(self.engine)

    def waits_for_people(self) -> list[Attention]:
        """Everything that waits for a person, longest waiting first."""
        from phantoms_dagster.production.inbox import refused_files  # noqa: PLC0415

        return sorted([*self.attention().read(), *refused_files(self.settings.inbox_path)], key=lambda item: item.since)

    def master_of(self, key: str) -> StageOutput | None:
        """What the video's reviewer decides about: its master with the words of its posts. None if there is none."""
        row = self.catalogue().stages(key).get("rendered_video")
        return output_of(key, "rendered_video", row.output) if row is not None and row.state == "done" else None

    def outages(self) -> Outages:
        """The breakers that are open now. Empty without Redis."""
        if self.settings.redis.url is None:
            return Outages()
        from phantoms_dagster.wiring.outages import outages_now  # noqa: PLC0415 - few commands need the Redis client

        return outages_now(self.settings, self.endpoints)

    def planning(self) -> Planning:
        """The planner's reader."""
        return Planning(self.engine)

    def results(self) -> Results:
        """The metrics that were read of posts, and which posts to read next."""
        return Results(self.engine)

    def performance(self) -> PerformanceTables:
        """The performance tables."""
        from phantoms_dagster.store.performance.tables import PerformanceTables  # noqa: PLC0415 - it imports pandas

        return PerformanceTables(self.engine)

    def record_decision(
        self, key: str, *, approved: bool, reviewer: str, note: str, content_sha256: str | None = None
    ) -> tuple[str, ...]:
        """Record a decision made in the Dagster UI. Returns warnings for its reviewer. `content_sha256`: see `Decisions.decide`."""
        decided = self.decisions().decide(
            key, approved=approved, reviewer=reviewer, note=note, via="dagster", content_sha256=content_sha256
        )
        return decided.warnings

    def take_inbox(self) -> list[InboxReport]:
        """Import the files in the inbox folder into the catalogue."""
        from phantoms_dagster.production.inbox import take_inbox  # noqa: PLC0415 - it imports a spreadsheet reader

        catalogue = self.catalogue()

        def channels() -> Mapping[str, Channel]:
            found = self.channels()
            catalogue.put_channels(found.values())
            return found

        return take_inbox(self.settings.inbox_path, channels, catalogue.add_from)

    def close(self) -> None:
        """Close all connections."""
        if "loop" in self.__dict__:
            self.loop.run(self._opened.aclose())
            self.loop.close()
        if "engine" in self.__dict__:
            self.engine.dispose()

    # --- the asynchronous side

    @cached_property
    def loop(self) -> asyncio.Runner:
        """This process's event loop. The steps of a run share it and the pipeline's connections."""
        return asyncio.Runner()

    async def pipeline(self) -> Pipeline:
        """The pipeline on `loop`, opened on first use."""
        if self._pipeline is None:
            # This imports the providers and renderers of all stages.
            from phantoms_dagster.wiring.pipeline import open_pipeline  # noqa: PLC0415

            opening = open_pipeline(self.settings, self.endpoints, self.clock, self.database_url)
            self._pipeline = await self._opened.enter_async_context(opening)
        return self._pipeline

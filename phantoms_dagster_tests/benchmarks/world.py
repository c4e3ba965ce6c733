"""What every benchmark starts: embedded servers in a temporary folder, the sandbox as its own process, settings, videos.

`fleet` and `completion` run the videos, and the benchmarks say what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import RowMapping, text

from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.servers import EmbeddedServers, ServerUrls, free_port
from phantoms_dagster.embedded.supervisor import Supervisor
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.resilience.pools import DEFAULT_POOLS
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.decisions import Decided
from phantoms_dagster.store.migrate import upgrade
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.benchmarks.workers import Fleet

# Quotas of the stand-ins are for days; a benchmark posts a day's worth in a minute.
UNLIMITED = {
    "youtube.inserts_per_day": 1_000_000,
    "youtube.units_per_day": 100_000_000,
    "instagram.quota_total": 1_000_000,
    "instagram.containers_total": 1_000_000,
    "shotstack.ingest_seconds": 0.0,
    "shotstack.processing_seconds": 0.0,
}
# The stand-ins' own limits a minute and account, for pools that keep none.
UNPACED = {"tiktok.rate_limits": False, "tiktok.daily_posts": None}
# Waits of a day's work, shortened to those of a benchmark.
QUICK = {
    "PHANTOMS_MAX_WAIT_SECONDS": "4",
    "PHANTOMS_BACKOFF_SECONDS": "0.3",
    "PHANTOMS_BACKOFF_MAX_SECONDS": "4",
    "PHANTOMS_RENDER_POLL_SECONDS": "0.3",
    "PHANTOMS_LEASE_SECONDS": "20",
    "PHANTOMS_CALL_SECONDS": "30",
    "PHANTOMS_BREAKER_RESET_SECONDS": "2",
    "PHANTOMS_BATCH_SIZE": "25",
    "PHANTOMS_RUNS_PER_STAGE": "8",
}
VIDEOS_PER_CHANNEL = 3


def wide_pools(slots: int = 64) -> str:
    """Every pool without rates and quotas: for benchmarks whose target is not the pools themselves."""
    return json.dumps({name: {"slots": slots, "rates": [], "daily": None} for name in DEFAULT_POOLS})


@dataclass
class Sandbox:
    """The sandbox's controls, over HTTP."""

    url: str
    client: httpx.Client

    def configure(self, **settings: Any) -> None:
        """Set a setting of a stand-in, such as `youtube.inserts_per_day`."""
        self._post("config", settings)

    def fault(self, route: str, kind: str, **fields: Any) -> None:
        """Let a route fail; see `sandbox.core.Fault`."""
        self._post("faults", {"route": route, "kind": kind, **fields})

    def heal(self, route: str | None = None) -> None:
        """End the faults of that route, or all."""
        self.client.delete(f"{self.url}/_sandbox/faults", params={"route": route} if route else None).raise_for_status()

    def ledger(self, **query: str) -> dict[str, Any]:
        """`entries`, `calls`, `max_in_flight`, and with `arrivals=<glob>` the arrivals of those routes."""
        answer = self.client.get(f"{self.url}/_sandbox/ledger", params=query)
        answer.raise_for_status()
        return dict(answer.json())

    def _post(self, what: str, body: Mapping[str, Any]) -> None:
        self.client.post(f"{self.url}/_sandbox/{what}", json=dict(body)).raise_for_status()


@dataclass
class Bench:
    """A running world. Use `open_bench`."""

    home: Path
    servers: EmbeddedServers
    urls: ServerUrls
    services: Services
    sandbox: Sandbox
    environment: dict[str, str]
    stack: contextlib.ExitStack
    stand_ins: Supervisor
    fleets: int = 0
    warnings: list[str] = field(default_factory=list)

    # --- processes

    @property
    def pids(self) -> dict[str, int]:
        """The running processes of `postgres`, `valkey` and `sandbox`."""
        return {**self.servers.pids, **self.stand_ins.pids}

    def fleet(self, role: str, count: int, *, settings: Mapping[str, str] | None = None, **options: Any) -> Fleet:
        """Start worker processes (see `fleet`). The end of this world ends them, too."""
        self.fleets += 1
        name = f"fleet-{self.fleets}-{role}"
        argv = (sys.executable, "-m", "phantoms_dagster_tests.benchmarks.fleet", role, str(count), json.dumps(options))
        fleet = Fleet(name, argv, {**self.environment, **(settings or {})}, self.home / "logs")
        self.stack.callback(fleet.stop)
        fleet.start()
        return fleet

    # --- videos

    def channels(self, count: int, platforms: Sequence[Platform] = Platform.usual(), *, first: int = 0) -> list[Channel]:
        """Make channels with separate accounts, because an account posts one video at a time. Their numbers start at `first`."""
        made = [
            Channel(
                name=f"channel-{n}",
                title=f"Channel {n}",
                brand_voice="calm and exact",
                target_seconds=15,
                accounts=dict.fromkeys(platforms, f"account-{n}"),
            ).model_copy(update={"tiktok": TikTokChoices(privacy="PUBLIC_TO_EVERYONE")})
            for n in range(first, first + count)
        ]
        self.services.catalogue().put_channels(made)
        return made

    def add_videos(
        self,
        count: int,
        *,
        platforms: Sequence[Platform] = Platform.usual(),
        topic: str = "Ocean facts",
        register: bool = True,
        first: int = 0,
        per_channel: int = VIDEOS_PER_CHANNEL,
    ) -> list[str]:
        """Add videos, several on each channel. Return their keys. Unregistered ones wait, like videos that are new to Dagster.

        With another `first`, later videos of the same world get separate channels.
        """
        channels = self.channels(max(1, -(-count // per_channel)), platforms, first=first)
        briefs = [
            Brief(
                title=f"{topic} number {n:04d}",
                angle="One surprising fact, told in fifteen seconds.",
                facts=(f"Fact {n:04d} is not like the others.",),
                channel=channels[(n - first) % len(channels)].name,
                platforms=tuple(platforms),
            )
            for n in range(first, first + count)
        ]
        keys = [added.key for added in self.services.catalogue().add(briefs, source="benchmark")]
        if register:
            self.services.catalogue().registered(keys)
        return keys

    def rows(self, statement: str, **values: Any) -> Sequence[RowMapping]:
        """The rows of a query."""
        with self.services.engine.connect() as connection:
            return connection.execute(text(statement), values).mappings().all()


@contextlib.contextmanager
def open_bench(
    *,
    seed: int = 1,
    settings: Mapping[str, str] | None = None,
    quick: bool = True,
    durable: bool = False,
    connected: bool = False,
) -> Iterator[Bench]:
    """Servers, schema, sandbox and settings of one benchmark, in a folder that is gone afterwards.

    `settings`: environment variables for this world and its workers, on top of the quick ones and wide pools, or, when not
    `quick`, of the product's own defaults. `durable`: PostgreSQL and Valkey flush to the disk, as for users. `connected`: the
    platforms count as the real ones at the sandbox's address, so each account needs a token, and the owner is checked.
    """
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        del os.environ[name]  # a benchmark must not touch real accounts or servers that are running
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phantoms-bench-", ignore_cleanup_errors=True)))
        warnings: list[str] = []
        servers = EmbeddedServers(home, durable=durable, notify=warnings.append)
        urls = stack.enter_context(servers)
        port = free_port(0)
        chosen = {
            **({**QUICK, "PHANTOMS_POOLS": wide_pools()} if quick else {}),
            **(settings or {}),
            "PHANTOMS_HOME": str(home),
            "PHANTOMS_DATABASE_URL": urls.database_url,
            "PHANTOMS_DAGSTER_DATABASE_URL": urls.dagster_database_url,
            "PHANTOMS_REDIS_URL": urls.redis_url,
            "PHANTOMS_SANDBOX": "on",
            "PHANTOMS_RENDERER": "shotstack",
            "PHANTOMS_SANDBOX_URL": f"http://127.0.0.1:{port}",
            **(_platforms_at(f"http://127.0.0.1:{port}") if connected else {}),
        }
        environment = {**os.environ, **chosen, "PYTHONUNBUFFERED": "1"}
        upgrade(urls.database_url)
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=30))
        sandbox = Sandbox(f"http://127.0.0.1:{port}", client)
        stand_ins = _start_sandbox(stack, home, sandbox, port, seed, environment)
        sandbox.configure(**UNLIMITED, **(UNPACED if "PHANTOMS_POOLS" in chosen else {}))
        services = Services(_settings(chosen))
        stack.callback(services.close)
        bench = Bench(home, servers, urls, services, sandbox, environment, stack, stand_ins, warnings=warnings)
        yield bench


def _platforms_at(url: str) -> dict[str, str]:
    """Return settings with which the platforms count as real ones at that address.

    Scripts and renders have no keys and stay in the sandbox.
    """
    return {
        "PHANTOMS_SANDBOX": "auto",
        "PHANTOMS_YOUTUBE_BASE_URL": url,
        "PHANTOMS_TIKTOK_BASE_URL": f"{url}/tiktok",
        "PHANTOMS_INSTAGRAM_BASE_URL": f"{url}/instagram",
        "PHANTOMS_INSTAGRAM_UPLOAD_URL": f"{url}/instagram/rupload",
    }


def _start_sandbox(
    stack: contextlib.ExitStack, home: Path, sandbox: Sandbox, port: int, seed: int, environment: Mapping[str, str]
) -> Supervisor:
    argv = (sys.executable, "-m", "phantoms_dagster.cli.main", "sandbox", "--port", str(port), "--seed", str(seed))

    def ready() -> bool:
        try:
            return sandbox.client.get(f"{sandbox.url}/_sandbox/health").status_code == 200
        except httpx.HTTPError:
            return False

    spec = ProcessSpec(name="sandbox", argv=(*argv, "--fast-renders"), env=environment, ready=ready, grace_seconds=3.0)
    supervisor = Supervisor([spec], logs=home / "logs")
    stack.callback(supervisor.stop)
    supervisor.start()
    return supervisor


def _settings(chosen: Mapping[str, str]) -> Settings:
    """The settings that the workers read from their environment, in this process."""
    os.environ.update(chosen)
    try:
        return Settings()
    finally:
        for name in chosen:
            os.environ.pop(name, None)


class Reviewer:
    """A person who looks at every video and approves it, in a thread of this process.

    `page`: how many it decides on at once; fewer once every render is done.
    """

    def __init__(self, bench: Bench, *, every_seconds: float = 0.3, page: int = 1) -> None:
        self._bench = bench
        self._every = every_seconds
        self._page = page
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._review, name="reviewer", daemon=True)
        self.approved = 0

    def __enter__(self) -> Reviewer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _review(self) -> None:
        decisions = self._bench.services.decisions()
        while not self._stop.wait(self._every):
            with contextlib.suppress(Exception):  # the database may be away: the reviewer comes back
                waiting = decisions.undecided()
                full = len(waiting) // self._page * self._page
                page = waiting[:full] if full or self._more_to_come() else waiting
                found = decisions.decide_all(page, approved=True, reviewer="benchmark", via="cli")
                self.approved += sum(isinstance(one, Decided) and one.new for one in found)

    def _more_to_come(self) -> bool:
        if self._page == 1:
            return False
        statement = "SELECT EXISTS (SELECT FROM phantoms.stages WHERE stage = 'rendered_video' AND state <> 'done') AS more"
        return bool(self._bench.rows(statement)[0]["more"])


def hurry() -> str:
    """Give this process and its children priority on this machine, if permitted. Return a note for the report."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except PermissionError:
        return "run as an ordinary user: what else the machine does shows in the times at which calls arrive"
    return "run at a raised priority: what else the machine does should not show in the times at which calls arrive"


def sleep_until(moment: float) -> None:
    """Sleep until that time of `time.monotonic`."""
    time.sleep(max(0.0, moment - time.monotonic()))

"""A whole running stack on a bench, as users have it: workers, code server, daemon, web server, metrics, under the product's
own supervision. The benchmarks add the videos and measure.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from unittest import mock

from sqlalchemy import Engine, RowMapping, create_engine, text
from sqlalchemy.exc import DBAPIError

from phantoms_dagster.cli import graphql
from phantoms_dagster.cli.stack import MODULE, PRELOADED, Running, Stack
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster.execution.slots import slots_of
from phantoms_dagster.settings import Settings
from phantoms_dagster_tests.benchmarks.cpu import CpuMeter
from phantoms_dagster_tests.benchmarks.world import Bench, open_bench

# The definitions with a prepared voice and a studio that remembers.
STAND_INS = "phantoms_dagster_tests.benchmarks.definitions"
READY_SECONDS = 120.0
LOOK_SECONDS = 0.05


class NotReady(Exception):
    """A part of the stack did not come up in time."""


class Notice(NamedTuple):
    """The supervisor's message about a process that ended on its own. `at` is from `time.monotonic`."""

    at: float
    text: str


@dataclass
class BenchStack:
    """A running stack. Use `open_stack`."""

    bench: Bench
    settings: Settings
    environment: dict[str, str]
    """Of every process of the stack: for one that a benchmark starts beside it (`DAGSTER_HOME` included)."""
    notices: list[Notice]
    running: Running
    _stack: Stack = field(repr=False)
    _meter: CpuMeter = field(repr=False)
    queues: RunQueues = field(repr=False)

    # --- processes

    def pids(self) -> dict[str, int]:
        """The processes of the product, by service: `workers` (their parent), `code-server`, `daemon`, `webserver`, `metrics`."""
        return self._stack.pids()

    def cpu(self) -> dict[str, float]:
        """CPU-seconds so far of each service with everything it has started; also `postgres`, `valkey` and `sandbox`.

        It never decreases. See `CpuMeter` for what a kill -9 hides from it.
        """
        return self._meter.read()

    def workers_alive(self) -> dict[str, int]:
        """How many workers listen, by queue."""
        return {queue: self.queues.alive(queue) for queue in slots_of(self.settings)}

    # --- Dagster

    @cached_property
    def dagster(self) -> Engine:
        """Dagster's own tables."""
        url = self.settings.dagster_url()
        assert url is not None
        engine = create_engine(url, pool_pre_ping=True)
        self.bench.stack.callback(engine.dispose)
        return engine

    def dagster_rows(self, statement: str, **values: Any) -> Sequence[RowMapping]:
        """The rows of a query on Dagster's tables (`runs`, `event_logs`, ...): cheaper than GraphQL, and no import of Dagster."""
        with self.dagster.connect() as connection:
            return connection.execute(text(statement), values).mappings().all()

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a GraphQL request as the UI does. Needs the web server."""
        return graphql.ask(self.running.web_url, query, variables)

    def ready(self) -> bool:
        """Whether a worker listens for every slot, and the daemon's sensors have begun."""
        workers = "workers" in self.pids()  # a stock stack has none
        if workers and any(self.workers_alive()[queue] < count for queue, count in slots_of(self.settings).items()):
            return False
        with contextlib.suppress(DBAPIError):  # the daemon makes its table
            return bool(self.dagster_rows("SELECT 1 FROM daemon_heartbeats WHERE daemon_type = 'SENSOR'"))
        return False


class _WithoutPages(Stack):
    """A stack without a browser."""

    def _dagster(self, settings: Settings, environment: dict[str, str]) -> list[ProcessSpec]:
        return [spec for spec in super()._dagster(settings, environment) if spec.name != "webserver"]


@contextlib.contextmanager
def open_stack(
    *,
    seed: int = 1,
    settings: Mapping[str, str] | None = None,
    module: str = MODULE,
    webserver: bool = True,
    quick: bool = False,
    durable: bool = True,
    kind: type[Stack] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[BenchStack]:
    """A stack that is ready to work: all workers listen, the daemon's sensors tick. It is gone afterwards.

    `settings`: environment variables `PHANTOMS_*` of every process, on top of the product's own defaults (`quick`: of the
    benchmarks' shortened waits and wide pools, see `world`). Quotas and rates of real providers are in force unless
    `PHANTOMS_POOLS` widens them (`world.wide_pools`). `module`: of the definitions, `STAND_INS` to do without ffmpeg and the voice.
    `kind`: of stack, for one that is put together in another way.
    """
    notices: list[Notice] = []
    with contextlib.ExitStack() as exits:
        bench = exits.enter_context(open_bench(seed=seed, settings=settings, quick=quick, durable=durable))
        stack = (kind or (Stack if webserver else _WithoutPages))(
            bench.services.settings, say=say, warn=lambda words: notices.append(Notice(time.monotonic(), words)), module=module
        )
        ours = {name: value for name, value in bench.environment.items() if name.startswith("PHANTOMS_")}
        # The stack's processes inherit the environment of the user who types `phantoms up`.
        with mock.patch.dict(os.environ, ours):
            running = exits.enter_context(stack)
        environment = {
            **bench.environment,
            "PHANTOMS_WEB_URL": running.web_url,
            "DAGSTER_HOME": str(running.home / "dagster"),
            "DAGSTER_EVENT_BATCH_SIZE": "500",
        }
        # The services are below the parent that forks them, which does nothing else.
        metered = lambda: {name: pid for name, pid in {**bench.pids, **stack.pids()}.items() if name != PRELOADED}  # noqa: E731
        meter = exits.enter_context(CpuMeter(metered))
        redis = exits.enter_context(connect(bench.urls.redis_url))
        opened = BenchStack(bench, running.settings, environment, notices, running, stack, meter, RunQueues(redis))
        wait_for(opened.ready, seconds=READY_SECONDS, what="the workers and the daemon")
        yield opened


def wait_for(condition: Callable[[], Any], *, seconds: float, what: str, pause: float = LOOK_SECONDS) -> Any:
    """The first true value of the condition. Raises NotReady after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause)
    raise NotReady(f"not within {seconds:g} s: {what}")

"""A world that hosts reach over a network: servers, sandbox, daemon and code server here, `phantoms worker` on the hosts.

The product's servers and sandbox listen on the loopback interface alone. Here they listen on the network as well, directly and not
behind a relay: a relay would keep the connections of a host that is gone open and answer for it, and how the servers cope with that
loss is what is looked at. What happens to the hosts belongs to the benchmarks.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from phantoms_dagster.cli.stack import Stack
from phantoms_dagster.embedded import servers as embedded
from phantoms_dagster.embedded.postgres import Postgres
from phantoms_dagster.embedded.processes import ProcessSpec
from phantoms_dagster.embedded.servers import EmbeddedServers, ServerUrls, free_port
from phantoms_dagster.embedded.supervisor import Supervisor
from phantoms_dagster.embedded.valkey import Valkey
from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster.execution.slots import QUEUES
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.benchmarks.memory import children_of
from phantoms_dagster_tests.benchmarks.namespaces import NETWORK, SERVER, Host, open_network
from phantoms_dagster_tests.benchmarks.network_processes import CAUGHT
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, wait_for
from phantoms_dagster_tests.benchmarks.world import UNLIMITED, UNPACED, Bench, Sandbox, wide_pools

PROCESSES = "phantoms_dagster_tests.benchmarks.network_processes"
READY_SECONDS = 120.0
CAUGHT_SECONDS = 30.0

_TRANSACTIONS = """
    SELECT count(*) AS n FROM pg_stat_activity
    WHERE client_addr = CAST(:address AS inet) AND state IN ('idle in transaction', 'idle in transaction (aborted)')
"""


class _NetworkPostgres(Postgres):
    """PostgreSQL on the network, too."""

    def prepare(self, log: Path) -> None:
        super().prepare(log)
        with (self.data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write(f"host all all {NETWORK} scram-sha-256\n")

    def spec(self) -> ProcessSpec:
        spec = super().spec()
        return replace(spec, argv=(*spec.argv, "-c", f"listen_addresses=127.0.0.1,{SERVER}"), complaint=None)


class _NetworkValkey(Valkey):
    """Valkey on the network, too."""

    def spec(self) -> ProcessSpec:
        spec = super().spec()
        return replace(spec, argv=(*spec.argv[:-1], "--bind", f"127.0.0.1 {SERVER}", spec.argv[-1]), complaint=None)


class _ServerStack(Stack):
    """What decides, without what carries: daemon and code server."""

    def _dagster(self, settings: Settings, environment: dict[str, str]) -> list[ProcessSpec]:
        return [spec for spec in super()._dagster(settings, environment) if spec.name not in ("workers", "webserver")]


@dataclass
class NetworkWorld:
    """A running world. Use `open_world`."""

    bench: Bench
    hosts: Sequence[Host]
    settings: Settings
    notices: list[str]
    _queues: RunQueues = field(repr=False)

    def runs(self) -> dict[str, int]:
        """How many Dagster runs there are, by status."""
        engine = create_engine(self.settings.dagster_url() or "")
        try:
            with engine.connect() as connection:
                rows = connection.execute(text("SELECT status, count(*) FROM runs GROUP BY 1 ORDER BY 1")).all()
        finally:
            engine.dispose()
        return {str(status): int(count) for status, count in rows}

    def busy_workers(self, host: Host) -> list[int]:
        """The workers of a host that carry a run: their process ids."""
        return [worker for worker in children_of(host.pid(_workers(host))) if children_of(worker)]

    def log_of(self, host: Host) -> list[str]:
        """What the workers of a host have said, line by line."""
        return self._said(_workers(host)).splitlines()

    def catch_inside_a_transaction(self, host: Host, keys: Sequence[str]) -> None:
        """Have a runner on that host lock the stages of these videos and come no further."""
        name = f"{host.name}-caught"
        host.run(name, (sys.executable, "-m", PROCESSES, "caught", *keys), self.bench.environment)
        wait_for(lambda: CAUGHT in self._said(name), seconds=CAUGHT_SECONDS, what=f"a transaction on {host.name}")

    def transactions_of(self, host: Host) -> int:
        """How many transactions PostgreSQL keeps open that wait for that host."""
        return int(self.bench.rows(_TRANSACTIONS, address=host.address)[0]["n"])

    def _said(self, name: str) -> str:
        return (self.bench.home / "logs" / f"{name}.log").read_text("utf-8", "replace")

    def ready(self) -> bool:
        """Whether a worker listens for every queue on every host, and the daemon's sensors have begun."""
        if any(self._queues.alive(queue) < len(self.hosts) for queue in QUEUES):
            return False
        engine = create_engine(self.settings.dagster_url() or "")
        try:
            with engine.connect() as connection:
                return bool(connection.execute(text("SELECT 1 FROM daemon_heartbeats WHERE daemon_type = 'SENSOR'")).all())
        except DBAPIError:  # the daemon makes its table
            return False
        finally:
            engine.dispose()


@contextlib.contextmanager
def open_world(names: Sequence[str], *, seed: int, settings: Mapping[str, str]) -> Iterator[NetworkWorld]:
    """A world with a host of each of those names, ready to work; all of it is gone afterwards.

    `settings`: environment variables of every process, on top of the product's own defaults and wide pools. This process and what
    it starts later are on the network from then on (see `open_network`).
    """
    for name in [n for n in os.environ if n.startswith(("PHANTOMS_", "DAGSTER_"))]:
        del os.environ[name]  # a benchmark must not touch real accounts or servers that are running
    notices: list[str] = []
    with contextlib.ExitStack() as exits:
        home = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="phantoms-bench-", ignore_cleanup_errors=True)))
        logs = home / "logs"
        network = exits.enter_context(open_network(logs))
        servers = EmbeddedServers(home, durable=False, notify=notices.append)
        with mock.patch.multiple(embedded, Postgres=_NetworkPostgres, Valkey=_NetworkValkey):
            urls = _on_network(exits.enter_context(servers))
        sandbox = Sandbox(f"http://{SERVER}:{free_port(0)}", exits.enter_context(httpx.Client(trust_env=False, timeout=30)))
        stand_ins = _start_sandbox(exits, logs, sandbox, seed)
        sandbox.configure(**UNLIMITED, **UNPACED)
        chosen = {
            "PHANTOMS_POOLS": wide_pools(),
            **settings,
            "PHANTOMS_HOME": str(home),
            "PHANTOMS_MEDIA": str(home / "media"),
            "PHANTOMS_DATABASE_URL": urls.database_url,
            "PHANTOMS_DAGSTER_DATABASE_URL": urls.dagster_database_url,
            "PHANTOMS_REDIS_URL": urls.redis_url,
            "PHANTOMS_SANDBOX": "on",
            "PHANTOMS_RENDERER": "shotstack",
            "PHANTOMS_SANDBOX_URL": sandbox.url,
            # How many runs of a stage Dagster lets through: as many as all hosts together have workers.
            "PHANTOMS_WORKER_SLOTS": json.dumps(dict.fromkeys(QUEUES, len(names))),
        }
        with mock.patch.dict(os.environ, chosen):
            services = Services(Settings())
            running = exits.enter_context(
                _ServerStack(services.settings, say=lambda _: None, warn=notices.append, module=STAND_INS)
            )
        exits.callback(services.close)
        environment = {**os.environ, **chosen, "PYTHONUNBUFFERED": "1"}
        hosts = [network.host(name) for name in names]
        for host in hosts:
            _start_workers(host, {**environment, "PHANTOMS_HOME": str(home / host.name)})
        bench = Bench(home, servers, urls, services, sandbox, environment, exits, stand_ins)
        queues = RunQueues(exits.enter_context(connect(urls.redis_url)))
        world = NetworkWorld(bench, hosts, running.settings, notices, queues)
        wait_for(world.ready, seconds=READY_SECONDS, what="the workers of both hosts and the daemon", pause=0.2)
        yield world


def _on_network(urls: ServerUrls) -> ServerUrls:
    names = ("database_url", "dagster_database_url", "redis_url")
    return ServerUrls(**{name: getattr(urls, name).replace("@127.0.0.1:", f"@{SERVER}:") for name in names})


def _start_sandbox(exits: contextlib.ExitStack, logs: Path, sandbox: Sandbox, seed: int) -> Supervisor:
    def ready() -> bool:
        try:
            return sandbox.client.get(f"{sandbox.url}/_sandbox/health").status_code == 200
        except httpx.HTTPError:
            return False

    argv = (sys.executable, "-m", PROCESSES, "sandbox", SERVER, str(httpx.URL(sandbox.url).port), str(seed))
    supervisor = Supervisor([ProcessSpec(name="sandbox", argv=argv, ready=ready, grace_seconds=3.0)], logs=logs)
    exits.callback(supervisor.stop)
    supervisor.start()
    return supervisor


def _workers(host: Host) -> str:
    return f"{host.name}-workers"


def _start_workers(host: Host, environment: Mapping[str, str]) -> None:
    queues = ",".join(f"{queue}=1" for queue in QUEUES)
    host.run(_workers(host), (sys.executable, "-m", PROCESSES, "worker", queues), environment)

"""`python -m phantoms_dagster.execution.health WHAT`: health checks of our processes, for containers.

They run often, so this imports neither Dagster nor the command line, which cost more than a CPU-second. A check takes at most a
third of a CPU-second; `port` takes a twentieth.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
from collections.abc import Callable, Sequence

MAX_WAIT_SECONDS = 5.0
# The daemon writes every 30 seconds.
SILENT_SECONDS = 120
# The daemons without which no stage is planned and no run leaves the queue.
DAEMONS = ("SENSOR", "QUEUED_RUN_COORDINATOR", "MONITORING")


class Unhealthy(Exception):
    """The process is not healthy. The message says why."""


def port(number: str) -> None:
    """Something listens on that port of this machine."""
    with socket.create_connection(("127.0.0.1", int(number)), MAX_WAIT_SECONDS):
        pass


def page(number_and_path: str) -> None:
    """An HTTP server of this machine answers `3000/server_info` with 200."""
    number, _, path = number_and_path.partition("/")
    connection = http.client.HTTPConnection("127.0.0.1", int(number), timeout=MAX_WAIT_SECONDS)
    try:
        connection.request("GET", f"/{path}")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.client.OK:
        raise Unhealthy(f"port {number} answered /{path} with {status}")


def daemon() -> None:
    """Dagster's daemon has written its heartbeats."""
    import psycopg  # noqa: PLC0415 - only here

    from phantoms_dagster import settings  # noqa: PLC0415

    url = settings.load().dagster_url()
    if url is None:
        raise Unhealthy("PHANTOMS_DATABASE_URL is not set")
    query = "SELECT daemon_type, extract(epoch FROM now() AT TIME ZONE 'UTC' - timestamp) FROM daemon_heartbeats"
    with psycopg.connect(
        url.replace("postgresql+psycopg2:", "postgresql:", 1), connect_timeout=int(MAX_WAIT_SECONDS)
    ) as connection:
        ages = {str(name): float(age) for name, age in connection.execute(query)}
    for name in DAEMONS:
        if name not in ages:
            raise Unhealthy(f"{name} has not started")
        if ages[name] > SILENT_SECONDS:
            raise Unhealthy(f"the last heartbeat of {name} was {ages[name]:.0f} s ago")


def worker() -> None:
    """A run worker of this machine or container has a valid lease in Redis."""
    from rq.worker import BaseWorker  # noqa: PLC0415 - only here

    from phantoms_dagster import settings  # noqa: PLC0415
    from phantoms_dagster.execution.queues import RunQueues, connect, worker_name  # noqa: PLC0415

    url = settings.load().redis.url
    if url is None:
        raise Unhealthy("PHANTOMS_REDIS_URL is not set")
    queues = RunQueues(connect(url.get_secret_value()))
    here = worker_name("", 0).rsplit("-", 3)[1]
    names = [key.removeprefix(BaseWorker.redis_worker_namespace_prefix) for key in BaseWorker.all_keys(queues.redis)]
    if not any(queues.is_alive(name) for name in names if f"-{here}-" in name):
        raise Unhealthy("no run worker of this machine reports to Redis")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    found = argparse.ArgumentParser(prog="python -m phantoms_dagster.execution.health", description="Is this process healthy?")
    kinds = found.add_subparsers(required=True, metavar="WHAT")
    checks: tuple[tuple[Callable[..., None], str | None], ...] = (
        (port, "NUMBER"),
        (page, "PORT/PATH"),
        (daemon, None),
        (worker, None),
    )
    for check, argument in checks:
        kind = kinds.add_parser(check.__name__, help=check.__doc__)
        kind.set_defaults(check=check, what=())
        if argument:
            kind.add_argument("what", metavar=argument, nargs=1)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a check. Return the exit code: 0 healthy, 1 not."""
    given = parser().parse_args(arguments)
    try:
        given.check(*given.what)
    except (Unhealthy, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Exception as error:  # noqa: BLE001 - any error means that it is not healthy
        # A driver's message may repeat a mistyped URL and so show a part of the password.
        sys.stderr.write(f"{type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

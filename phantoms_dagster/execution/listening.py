"""`python -m phantoms_dagster.execution.listening --seconds S`: waits until every queue has a worker, for at most S seconds.

A separate program, so that the process that starts the workers does not import RQ.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from phantoms_dagster.execution.queues import RunQueues, connect
from phantoms_dagster.execution.slots import redis_url, slots_of
from phantoms_dagster.settings import Settings

PAUSE_SECONDS = 0.1


def await_workers(settings: Settings, *, seconds: float) -> bool:
    """Wait until every queue that should have workers has one, even while Redis is down. Return whether that is so."""
    queues, deadline = RunQueues(connect(redis_url(settings))), time.monotonic() + seconds
    waiting = list(slots_of(settings))
    with queues.redis:
        while time.monotonic() < deadline:
            with contextlib.suppress(RedisError):
                waiting = [queue for queue in waiting if not queues.alive(queue)]
            if not waiting:
                return True
            time.sleep(PAUSE_SECONDS)
    return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m phantoms_dagster.execution.listening", description="Waits for run workers.")
    parser.add_argument("--seconds", type=float, default=60, help="wait at most this long (60)")
    await_workers(Settings(), seconds=parser.parse_args(arguments).seconds)


if __name__ == "__main__":
    main()

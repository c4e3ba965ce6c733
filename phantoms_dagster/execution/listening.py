"""`python -m phantoms_dagster.execution.listening --seconds S`: ends when a worker listens on each queue, or after that time.

It is a program of its own, so that the process that starts workers and waits for them does not import RQ.
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
    """Wait until a worker listens on each queue that has workers here; whether they do. A Redis that is away is waited for."""
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
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m phantoms_dagster.execution.listening", description="Waits for run workers.")
    parser.add_argument("--seconds", type=float, default=60, help="the longest that it waits (60)")
    await_workers(Settings(), seconds=parser.parse_args(arguments).seconds)


if __name__ == "__main__":
    main()

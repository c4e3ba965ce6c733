"""Worker processes for the benchmarks: `python -m phantoms_dagster_tests.benchmarks.fleet ROLE COUNT [JSON]`.

The program is imported once and then forked, because importing it costs two CPU-seconds and a fork almost nothing. Each child
ends with its parent, and all share one process group. Children print one line of JSON each event to standard output.

The role `carry` runs the product's own code without Dagster, whose stock runs cost eight CPU-seconds each. It asks the store for
ready videos, `production.planner.plan` cuts them into runs over contiguous ranges, and `StageRunner.run` executes each run, several
at once on the single event loop and the single long-lived pipeline of the process. Roles of the pools are in `callers`.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from phantoms_dagster.domain.claims import RunContext
from phantoms_dagster.domain.planning import OpenRun, PlannedRun
from phantoms_dagster.domain.stages import CHAINS, stage
from phantoms_dagster.production.planner import BatchPolicy, plan
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.pipeline import Pipeline
from phantoms_dagster_tests.benchmarks import callers
from phantoms_dagster_tests.benchmarks.local_stand_ins import exchange_local_parts

RUNS_AT_ONCE = 12
LOOK_SECONDS = 0.25
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


class Carrier:
    """A worker that takes ready videos and does their stage."""

    def __init__(self, services: Services, pipeline: Pipeline, number: int) -> None:
        self._services = services
        self._pipeline = pipeline
        self._number = number
        self._runs: dict[asyncio.Task[None], OpenRun] = {}
        self._count = 0

    async def work(self) -> None:
        """Work until the process is ended."""
        while True:
            for task in [task for task in self._runs if task.done()]:
                del self._runs[task]
            try:
                planned = await asyncio.to_thread(self._planned)
            except DBAPIError:
                # As a tick of the sensor: the database is away, and is asked again.
                log.warning("nothing can be planned: the database does not answer")
                planned = []
            # Not all workers at the same range: the claim would give it to one of them and send the others away.
            random.shuffle(planned)
            for run in planned[: RUNS_AT_ONCE - len(self._runs)]:
                self._runs[asyncio.create_task(self._carry(run))] = OpenRun(run.target, run.first, run.last)
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.6, 1.4))

    def _planned(self) -> list[PlannedRun]:
        settings = self._services.settings
        policy = BatchPolicy(batch_size=settings.pacing.batch_size, runs_per_stage=settings.pacing.runs_per_stage)
        runs, now = list(self._runs.values()), datetime.now(UTC)
        planned = (
            plan(self._services.planning(), chain=chain, open_runs=runs, policy=policy, now=now) for chain in CHAINS.values()
        )
        return [run for found in planned for run in found]

    async def _carry(self, run: PlannedRun) -> None:
        self._count += 1
        context = RunContext(run_id=f"bench-{self._number}-{self._count}", by="sensor")
        try:
            await self._pipeline.runner.run(stage(run.target), run.keys, context)
        except Exception:
            log.exception("a run of %s broke off", run.target)


async def carry(number: int, options: Mapping[str, Any]) -> None:
    """The role `carry`. `studio: real` measures every video instead of each content once."""
    services = Services.from_environment()
    exchange_local_parts(studio=options.get("studio") != "real")
    await Carrier(services, await services.pipeline(), number).work()


ROLES: Mapping[str, Callable[[int, Mapping[str, Any]], Coroutine[Any, Any, None]]] = {"carry": carry, **callers.ROLES}


def _child(role: str, number: int, options: Mapping[str, Any]) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s [{number}] %(levelname)s %(name)s: %(message)s")
    random.seed(f"{options.get('seed', 1)}/{number}")
    try:
        asyncio.run(ROLES[role](number, options))
    except Exception:  # noqa: BLE001 - the traceback belongs into this worker's log
        traceback.print_exc()
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """Fork the children and wait for them.

    With the option `start_in` they share one `start`, that many seconds after the first fork. With `replace` a child that was
    killed is replaced by a new one, with a number of its own.
    """
    role, count = arguments[0], int(arguments[1])
    options = json.loads(arguments[2]) if len(arguments) > 2 else {}
    if "start_in" in options:
        options["start"] = time.time() + options["start_in"]
    children = [_fork(role, number, options) for number in range(count)]
    print(json.dumps({"pids": children, "start": options.get("start")}), flush=True)
    numbers, codes = itertools.count(count), []
    while children:
        pid, status = os.waitpid(-1, 0)
        children.remove(pid)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL and options.get("replace"):
            children.append(_fork(role, next(numbers), options))
        else:
            codes.append(code)
    return int(any(codes))


def _fork(role: str, number: int, options: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(_child(role, number, options))
    return pid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""*runs*: what a run of one video costs on our workers, and on the stock launcher, in the same stacks, one after the other.

A run of one stage (`script`) against the stock launcher with the in-process executor; a run of four stages (script to approval)
against the stock launcher with the multiprocess executor, which is Dagster's default. All are launched over GraphQL, one at a
time, as the UI does; sensors are off. CPU is that of all processes of the stack except the web server and the metrics, minus the
use of an idle stack in the same time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from phantoms_dagster.cli.stack import Stack
from phantoms_dagster.defs import tags
from phantoms_dagster_tests.benchmarks.latency import LEGS, runs_of
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, BenchStack, open_stack, wait_for
from phantoms_dagster_tests.benchmarks.stock import MULTIPROCESS, StockStack

SERVICES = ("workers", "code-server", "daemon")
FOUR = ("script", "voiceover", "rendered_video", "approval")
ONE_TARGET, FOUR_TARGET, START_TARGET = 12, 50, 1.0
WARM_UP = 2

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
_STOP = """
mutation Stop($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }
"""
_SENSORS = """
{ sensorsOrError(repositorySelector: {repositoryLocationName: "phantoms", repositoryName: "__repository__"}) {
    ... on Sensors { results { id name } } } }
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind on our workers (20)")
    parser.add_argument("--stock-runs", type=int, default=3, help="runs of each kind on the stock launcher (3)")
    parser.add_argument("--idle-seconds", type=float, default=10, help="how long an idle stack is watched (10)")


def run(options: argparse.Namespace) -> Report:
    """Three stacks, one after the other."""
    report = Report("runs", {"runs": options.runs, "stock runs": options.stock_runs})
    report.notes.append("the voice and the video are prepared ones in all stacks; the model and the render API answer at once")
    ours = _measure(Stack, STAND_INS, options, options.runs, (1, 4))
    one = _measure(StockStack, STAND_INS, options, options.stock_runs, (1,))
    four = _measure(StockStack, MULTIPROCESS, options, options.stock_runs, (4,))
    for stages, stock, target, executor in ((1, one, ONE_TARGET, "in-process"), (4, four, FOUR_TARGET, "multiprocess")):
        report.tell(f"{stages} stage, ours: CPU-s a run", round(ours[stages]["cpu"], 3))
        report.tell(f"{stages} stage, stock {executor}: CPU-s a run", round(stock[stages]["cpu"], 2))
        times = stock[stages]["cpu"] / ours[stages]["cpu"]
        report.check(f"{stages} stage: times less", round(times, 1), f">= {target}", ok=times >= target)
        report.tell(f"{stages} stage: by service, ours", ours[stages]["services"])
        report.tell(f"{stages} stage: by service, stock", stock[stages]["services"])
        report.tell(f"{stages} stage: s from launch to success p50, ours", round(ours[stages]["seconds"], 2))
        report.tell(f"{stages} stage: s from launch to success p50, stock", round(stock[stages]["seconds"], 2))
    start = ours[1]["start"]
    report.check("launch to first step p50 s", round(start, 2), f"< {START_TARGET:g}", ok=start < START_TARGET)
    for leg, seconds in ours[1]["legs"].items():
        report.tell(f"ours: {leg} p50 s", round(seconds, 2))
    return report


def _measure(
    kind: type[Stack], module: str, options: argparse.Namespace, count: int, kinds: tuple[int, ...]
) -> dict[int, Mapping[str, Any]]:
    with open_stack(module=module, kind=kind) as stack:
        for sensor in stack.ask(_SENSORS)["sensorsOrError"]["results"]:
            stack.ask(_STOP, id=sensor["id"])
        time.sleep(5)  # whatever they have begun comes to its end
        found: dict[int, Mapping[str, Any]] = {}
        for stages in kinds:
            keys = stack.bench.add_videos(count + WARM_UP, topic=f"Runs of {stages}", first=stages * 1000)
            _add_partitions(stack, keys)
            for key in keys[:WARM_UP]:
                _finish(stack, _launch(stack, key, stages))
            before, since = stack.cpu(), time.monotonic()
            time.sleep(options.idle_seconds)
            idle = {name: (stack.cpu()[name] - before[name]) / (time.monotonic() - since) for name in SERVICES if name in before}
            before, since = stack.cpu(), time.monotonic()
            seconds = [_finish(stack, _launch(stack, key, stages)) for key in keys[WARM_UP:]]
            took, after = time.monotonic() - since, stack.cpu()
            services = {name: (after[name] - before[name] - rate * took) / count for name, rate in idle.items()}
            legs = runs_of(stack)
            found[stages] = {
                "cpu": sum(services.values()),
                "services": {name: round(value, 3) for name, value in services.items()},
                "seconds": percentile(seconds, 0.5),
                "legs": {
                    name: percentile([at[last] - at[first] for at in legs if first in at and last in at], 0.5)
                    for name, (first, last) in LEGS.items()
                },
                "start": percentile([at["STEP_START"] - at["PIPELINE_STARTING"] for at in legs if "STEP_START" in at], 0.5),
            }
        return found


def _add_partitions(stack: BenchStack, keys: list[str]) -> None:
    values = [{"name": "videos", "key": key} for key in keys]
    with stack.dagster.begin() as connection:
        for value in values:
            connection.exec_driver_sql(
                "INSERT INTO dynamic_partitions (partitions_def_name, partition) VALUES (%(name)s, %(key)s)", value
            )


def _launch(stack: BenchStack, key: str, stages: int) -> str:
    wanted = FOUR[:stages]
    config = {"ops": {"approval": {"config": {"decision": "APPROVE", "reviewer": "benchmark"}}}} if "approval" in wanted else {}
    params = {
        "selector": {
            "repositoryLocationName": "phantoms",
            "repositoryName": "__repository__",
            "jobName": "script_job" if stages == 1 else "__ASSET_JOB",
            "assetSelection": [{"path": [name]} for name in wanted],
            "assetCheckSelection": [],
        },
        "mode": "default",
        "runConfigData": config,
        "executionMetadata": {"tags": [{"key": tags.PARTITION, "value": key}]},
    }
    answer = stack.ask(_LAUNCH, params=params)["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(f"the run could not be launched: {answer}")
    return str(answer["run"]["runId"])


def _finish(stack: BenchStack, run_id: str) -> float:
    since = time.monotonic()

    def ended() -> str | None:
        rows = stack.dagster_rows("SELECT status FROM runs WHERE run_id = :id", id=run_id)
        status = rows[0]["status"] if rows else None
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    status = wait_for(ended, seconds=180, what=f"the end of run {run_id}")
    if status != "SUCCESS":
        raise RuntimeError(f"run {run_id} ended with {status}")
    return time.monotonic() - since

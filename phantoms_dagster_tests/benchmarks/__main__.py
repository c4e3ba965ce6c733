"""`python -m phantoms_dagster_tests.benchmarks NAME [--json]`: exit code 0 only when every target was met."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from phantoms_dagster.embedded.supervisor import interrupt_on_signals
from phantoms_dagster_tests.benchmarks.report import show

NAMES = {
    "storm": "300 videos while every route fails three times in ten: nothing stuck, doubled or lost",
    "outage": "a provider dead for a minute under load: one probe a window, the others at full speed, all finish",
    "pools": "16 processes on 5 slots and 20 calls a second: never more, hardly less, in order, slots of the killed return",
    "neighbour": "one poisoned video among a hundred: the others finish in the same time",
    "stores": "Redis killed, FLUSHALL, PostgreSQL restarted in mid-run: all finish, none lost, none doubled",
    "inflight": "500 calls of 30 s in flight in one worker process, under 300 MB",
    "hosts": "workers on two hosts share the load; one is cut off, one killed: nothing lost, nothing doubled",
    "runs": "CPU of a run on our workers and on the stock launcher, and how soon its first step begins",
    "throughput": "1,000 videos through all stages: CPU of orchestration, and how many a second",
    "latency": "one video on an idle stack: brief to review under 10 s, approval to posts under 6 s, and where the time goes",
    "planner": "a look of the advance sensor at 10,000 and 100,000 videos: under 100 and 500 ms",
    "flood": "2,000 new videos while 20 approved ones are published: these take as long as alone",
    "kills": "50 kill -9 of every kind of process over 300 videos in the whole stack: all posted once, soon resumed",
    "random_kills": "2,000 posts on five platforms, workers killed every few seconds, stores restarted: all posted once",
    "year": "365 simulated days, five accounts, two posts a day: no slot missed without a reason, no false alarm",
    "weather": "200 videos while stores, disk, model, a token and a provider fail in turn: all posted once, one alert a cause",
    "readback": "60 posts on one Instagram account for 90 days: all numbers stored, publishing never waits; tables in SQL",
    "idle": "`phantoms up` with nothing to do: under 3 % of a core and 900 MB; and what --help and status cost",
    "approve": "a click on Approve at the desk of an idle stack to its posts committed: p50 under 4 s, p95 under 6 s",
    "desk": "every page of the desk with 100,000 videos and a million attempts, 20 requests a second: p95 under 100 ms, 200 MB",
    "fast_paths": "CPU with the fast paths of Dagster's private names, and with their plain implementations",
    "guards": "what an admission and a breaker check cost",
}
_PACKAGE = "phantoms_dagster_tests.benchmarks"


def main(arguments: list[str]) -> int:
    """Run the benchmark that the arguments name."""
    listed = "\n".join(f"  {name:<12} {what}" for name, what in NAMES.items())
    usage = f"usage: python -m {_PACKAGE} NAME [--json] [options]\n\n{listed}\n\nNAME --help tells a benchmark's options.\n"
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage)
        return 0
    if not arguments or arguments[0] not in NAMES:
        sys.stderr.write((f"there is no benchmark {arguments[0]!r}\n\n" if arguments else "") + usage)
        return 2
    name = arguments[0]
    module: ModuleType = importlib.import_module(f"{_PACKAGE}.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m {_PACKAGE} {name}", description=module.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    module.add_options(parser)
    options = parser.parse_args(arguments[1:])
    try:
        with interrupt_on_signals():
            report = module.run(options)
    except KeyboardInterrupt:
        return 130
    show(report, as_json=options.json)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

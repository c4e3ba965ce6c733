"""`python -m phantoms_dagster.execution.daemon -w workspace.yaml`: Dagster's daemon, which asks sensors twice a second.

Dagster's own asks them every five seconds, however short their interval, and a video is noticed several times on its way.
"""

from __future__ import annotations

import sys

from dagster._daemon import sensor
from dagster._daemon.cli import cli

# A little more than half of a sensor's shortest interval, a second: a look just before that is over would cost a whole one more.
LOOP_SECONDS = 0.51


def main() -> None:
    """`dagster-daemon run` with our interval. Its arguments are those of `dagster-daemon run`."""
    # There is no setting for it. A test notices when Dagster renames it.
    assert hasattr(sensor, "MIN_INTERVAL_LOOP_TIME")
    sensor.MIN_INTERVAL_LOOP_TIME = LOOP_SECONDS  # type: ignore[assignment]  # it is only ever slept
    cli(["run", *sys.argv[1:]], prog_name="python -m phantoms_dagster.execution.daemon")


if __name__ == "__main__":
    main()

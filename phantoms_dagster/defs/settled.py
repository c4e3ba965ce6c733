"""The sensor that marks partitions for which nothing will ever be made.

`store.settled` finds them. `step_events` does the same for the partitions of a running step.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from phantoms_dagster.defs.away import skips_while_the_store_is_away
from phantoms_dagster.defs.events import Stamps, report_events
from phantoms_dagster.domain.claims import DISCARDED, NOT_WANTED
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.settled import OVERLAP, Settled, SettledStages
from phantoms_dagster.wiring import Services

SECONDS = 120
# At most this many rows of each kind per evaluation. A flood is spread over several.
MOST = 100
KINDS = (NOT_WANTED, DISCARDED)


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Notes on partitions why nothing will be made: the brief does not want the platform, or a person discarded the "
    "failure. Without the note they would stay missing or failed forever.",
)
@skips_while_the_store_is_away
def settled_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """For each kind, the cursor holds the time up to which everything is noted, and the rows noted in the overlap before it."""
    cursor: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    stages, said = SettledStages(services.engine), []
    for kind, read in zip(KINDS, (stages.not_wanted, stages.given_up), strict=True):
        before = cursor.get(kind) or {"until": datetime.fromtimestamp(0, UTC).isoformat(), "rows": []}
        until = datetime.fromisoformat(before["until"])
        # Rows that are already noted must not use up the limit.
        found = read(until - OVERLAP, most=MOST + len(before["rows"]))
        fresh = [one for one in found if one.row not in set(before["rows"])]
        report_events(context.instance, [_note(one) for one in fresh], stamps=Stamps())
        cursor[kind] = _after(found, until)
        if fresh:
            what = "given up" if kind == DISCARDED else "not wanted on a platform"
            said.append(f"{len({one.key for one in fresh})} videos {what}")
    context.update_cursor(json.dumps(cursor))
    return dg.SkipReason("noted: " + ", ".join(said) if said else "nothing was settled")


def _after(found: Sequence[Settled], until: datetime) -> dict[str, Any]:
    until = max([one.since for one in found], default=until)
    oldest = until - OVERLAP - timedelta(seconds=1)
    return {"until": until.isoformat(), "rows": sorted({one.row for one in found if one.since > oldest})}


def _note(one: Settled) -> dg.AssetMaterialization:
    entry = "given_up" if one.discarded else "not_wanted"
    return dg.AssetMaterialization(dg.AssetKey(STAGES[one.stage].slug), partition=one.key, metadata={entry: one.why})

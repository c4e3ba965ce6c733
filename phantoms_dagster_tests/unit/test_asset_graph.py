"""A snapshot of the asset graph, so that reviewers see every change.

Renew the snapshot with `python -m phantoms_dagster_tests.unit.test_asset_graph`, and read its diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from phantoms_dagster.definitions import defs

SNAPSHOT = Path(__file__).with_suffix(".json")


def _graph() -> dict[str, Any]:
    repository = defs.get_repository_def()
    assets = {}
    for definition in repository.assets_defs_by_key.values():
        for spec in definition.specs:
            node = repository.asset_graph.get(spec.key)
            assets[spec.key.to_user_string()] = {
                "after": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
                "group": spec.group_name,
                "kinds": sorted(spec.kinds),
                "owners": list(spec.owners),
                "partitions": spec.partitions_def.name if isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition) else None,
                "pools": sorted(node.pools or ()),
                "skippable": spec.skippable,
                "backfill": str(definition.backfill_policy.policy_type.value) if definition.backfill_policy else None,
                "described": bool(spec.description),
            }
    return {
        "assets": dict(sorted(assets.items())),
        "checks": sorted(key.to_user_string() for key in repository.asset_graph.asset_check_keys),
        "jobs": sorted(repository.job_names),
        "schedules": {s.name: [str(s.cron_schedule), s.default_status.value] for s in repository.schedule_defs},
        "sensors": {s.name: s.default_status.value for s in sorted(repository.sensor_defs, key=lambda s: s.name)},
    }


def test_the_asset_graph_is_the_one_that_was_reviewed() -> None:
    assert _graph() == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(_graph(), indent=2) + "\n", encoding="utf-8")

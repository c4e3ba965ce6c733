"""What the tests of retirement share: videos that ended long ago in a real database, and a Dagster instance that knows them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from phantoms_dagster.defs import tags
from phantoms_dagster.defs.in_flight import VideoPartitions
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.sensors import register
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import stages_for
from phantoms_dagster.production.retirement import RetirementReport, retire
from phantoms_dagster.store.retirement import Retirement
from phantoms_dagster_tests.integration.stage_world import World, output_of

STAGES = [stage.name for stage in stages_for((Platform("youtube"),))]
LONG_AGO = timedelta(days=60)


def end(world: World, keys: Sequence[str], *, ago: timedelta) -> None:
    """All stages of these videos are done since then, and Dagster knew them before."""
    at = datetime.now(UTC) - ago
    world.write(
        """UPDATE phantoms.stages s SET state = 'done', ready_at = :at, finished_at = :at, output = g.output
            FROM phantoms.videos v, jsonb_to_recordset(CAST(:outputs AS jsonb)) AS g(stage text, output jsonb)
            WHERE v.id = s.video_id AND v.key = ANY(:keys) AND g.stage = s.stage""",
        keys=list(keys),
        at=at,
        outputs=json.dumps([{"stage": name, "output": output_of(name).model_dump(mode="json")} for name in STAGES]),
    )
    world.write("UPDATE phantoms.videos SET registered_at = :at WHERE key = ANY(:keys)", keys=list(keys), at=at)


@contextmanager
def dagster_instance(folder: Path, url: str, patch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance with the product's own storage on PostgreSQL."""
    storage = {"custom": {"module": "phantoms_dagster.execution.storage", "class": "PooledPostgresStorage", "config": {}}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}), encoding="utf-8")
    patch.setenv("DAGSTER_HOME", str(folder))
    patch.setenv("PHANTOMS_HOME", str(folder))
    patch.setenv("PHANTOMS_DAGSTER_DATABASE_URL", url)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        yield instance


@dataclass
class Archive:
    """Videos and their partitions."""

    world: World
    instance: dg.DagsterInstance

    @property
    def store(self) -> Retirement:
        """The table."""
        return Retirement(self.world.engine)

    @property
    def partitions(self) -> VideoPartitions:
        """Dagster's side."""
        return VideoPartitions(self.instance)

    def known(self) -> list[str]:
        """What Dagster lists."""
        return list(self.instance.get_dynamic_partitions(VIDEOS))

    def register(self) -> list[str]:
        """What the intake does."""
        return register(self.instance, self.world.catalogue)

    def finished(self, count: int = 1, *, ago: timedelta = LONG_AGO) -> list[str]:
        """Videos whose stages are all done since then, and which Dagster knows."""
        keys = self.world.add(count)
        self.register()
        end(self.world, keys, ago=ago)
        return keys

    def set(self, key: str, stage: str, state: str) -> None:
        """Put a stage into a state."""
        self.world.write(
            """UPDATE phantoms.stages s SET state = :state FROM phantoms.videos v
                WHERE v.id = s.video_id AND v.key = :key AND s.stage = :stage""",
            key=key,
            stage=stage,
            state=state,
        )

    def run(
        self,
        *,
        key: str | None = None,
        ends: tuple[str, str] | None = None,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    ) -> str:
        """A run in Dagster's tables; its id."""
        found = {tags.PARTITION: key} if key else {}
        found |= {tags.RANGE_START: ends[0], tags.RANGE_END: ends[1]} if ends else {}
        run = dg.DagsterRun("script_job", run_id=str(uuid.uuid4()), tags=found, status=status)
        self.instance.add_run(run)
        return run.run_id

    def empty(self) -> None:
        """As it was in the beginning."""
        self.end_runs()
        for key in self.known():
            self.instance.delete_dynamic_partition(VIDEOS, key)
        self.world.write("TRUNCATE phantoms.videos CASCADE")

    def end_runs(self) -> None:
        """All runs are over."""
        for run in self.instance.get_runs():
            self.instance.delete_run(run.run_id)

    def retire(self, **more: int) -> RetirementReport:
        """A night of the product's."""
        return retire(self.store, self.partitions, before=datetime.now(UTC) - timedelta(days=30), **more)

    def retired(self) -> list[str]:
        """Who is marked."""
        return [row["key"] for row in self.world.rows("SELECT key FROM phantoms.videos WHERE retired_at IS NOT NULL ORDER BY id")]

    def unfinished(self) -> Sequence[str]:
        """Who is marked and not noted as gone."""
        return self.store.unfinished(100_000)

"""Dagster's pages without a browser: the GraphQL calls that the UI makes, against our definitions on real servers, in this process.

Runs are carried out when a test asks for it, so that nothing waits for a daemon or a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._serdes import ConfigurableClass
from dagster._serdes.config_class import ConfigurableClassData
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster_graphql.test.utils import execute_dagster_graphql

from phantoms_dagster.defs.sensors import register
from phantoms_dagster.execution.storage import engine
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.stage_world import World

LAUNCH = """
mutation Launch($keys: [AssetKeyInput!]!, $tags: [ExecutionTag!]!, $config: RunConfigData) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "phantoms", repositoryName: "__repository__", jobName: "__ASSET_JOB", assetSelection: $keys},
    runConfigData: $config, mode: "default", executionMetadata: {tags: $tags}}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
PARTITIONS = """
query Partitions($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    partitionKeys
    assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions } }
  }
}
"""
EVENTS = """
query Events($key: AssetKeyInput!, $limit: Int!, $partitions: [String!]) {
  assetOrError(assetKey: $key) { ... on Asset {
    assetEventHistory(limit: $limit, partitions: $partitions, eventTypeSelectors: [MATERIALIZATION, OBSERVATION]) {
      results {
        __typename
        ... on MaterializationEvent { runId timestamp partition metadataEntries { label ... on TextMetadataEntry { text } } }
        ... on ObservationEvent { runId timestamp partition metadataEntries { label ... on TextMetadataEntry { text } } }
      }
    }
  } }
}
"""
CHECKS = """
query Checks($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetChecksOrError { ... on AssetChecks { checks {
      name executionForLatestMaterialization { status evaluation { success } }
    } } }
  } }
}
"""
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query Status($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""
ADD_PARTITION = """
mutation Add($key: String!) {
  addDynamicPartition(partitionsDefName: "videos", partitionKey: $key,
    repositorySelector: {repositoryLocationName: "phantoms", repositoryName: "__repository__"}) {
    __typename
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""


class LaterLauncher(RunLauncher, ConfigurableClass):
    """Notes the runs to carry out. A run must not start inside the event loop that answers a GraphQL call."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self.waiting: list[tuple[DagsterRun, Any]] = []
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """See the base class."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        """No fields."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> LaterLauncher:
        """See the base class."""
        del config_value
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """See the base class."""
        self.waiting.append((context.dagster_run, context.job_code_origin))

    def terminate(self, run_id: str) -> bool:
        """See the base class."""
        raise NotImplementedError(run_id)


@dataclass
class UiWorld:
    """The catalogue, a Dagster instance, and the pages."""

    world: World
    instance: DagsterInstance
    process: WorkspaceProcessContext
    settings: Settings

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """A GraphQL call."""
        data = execute_dagster_graphql(self.process.create_request_context(), query, variables).data
        assert data is not None
        return dict(data)

    def add(self, count: int = 1, **changes: Any) -> list[str]:
        """Videos, as partitions, too."""
        keys = self.world.add(count, **changes)
        register(self.instance, self.world.catalogue)
        return keys

    def launch(self, *assets: str, tags: Mapping[str, str], config: Mapping[str, Any] | None = None) -> str:
        """Launch a run and carry it out; its id."""
        given = [{"key": key, "value": value} for key, value in tags.items()]
        answer = self.ask(LAUNCH, keys=_keys(assets), tags=given, config=config or {})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        self.carry_out()
        return str(answer["run"]["runId"])

    def status(self, run_id: str) -> str:
        """How a run ended."""
        return str(self.ask(RUN, id=run_id)["runOrError"]["status"])

    def messages(self, run_id: str) -> str:
        """What a run's event log says, failures included."""
        lines = []
        for entry in self.instance.all_logs(run_id):
            lines.append(entry.user_message)
            event = entry.dagster_event
            if event is not None and event.is_step_failure and event.step_failure_data.user_failure_data is not None:
                lines.append(event.step_failure_data.user_failure_data.description or "")
        return "\n".join(lines)

    def start_backfill(self, asset: str, keys: Sequence[str]) -> str:
        """Launch a backfill as the button does; its id."""
        params = {"assetSelection": _keys([asset]), "partitionNames": list(keys)}
        answer = self.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def backfill(self, asset: str, keys: Sequence[str]) -> str:
        """Launch a backfill and carry out its runs; its status at the end."""
        backfill_id = self.start_backfill(asset, keys)
        for _ in range(10):
            self.look_at_backfills()
            self.carry_out()
            status = str(self.ask(BACKFILL_STATUS, id=backfill_id)["partitionBackfillOrError"]["status"])
            if status not in ("REQUESTED", "CANCELING"):
                return status
        return status

    def look_at_backfills(self) -> None:
        """What the daemon does: it makes the runs of backfills and launches them."""
        for error in execute_backfill_iteration(self.process, logging.getLogger("backfill")):
            assert error is None, error

    def carry_out(self) -> None:
        """Carry out the runs that were launched."""
        launcher = self.instance.run_launcher
        assert isinstance(launcher, LaterLauncher)
        while launcher.waiting:
            run, origin = launcher.waiting.pop(0)
            execute_run(recon_job_from_origin(origin), run, self.instance)

    def partitions(self, asset: str) -> dict[str, list[str]]:
        """The partitions of an asset as its page shows them: all, materialized, failed, missing."""
        [node] = self.ask(PARTITIONS, keys=_keys([asset]))["assetNodes"]
        found = node["assetPartitionStatuses"]
        return {
            "all": node["partitionKeys"],
            "materialized": found["materializedPartitions"],
            "failed": found["failedPartitions"],
            "missing": found["unmaterializedPartitions"],
        }

    def shown_events(self, asset: str, *, limit: int = 50, partitions: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The events that the asset's page shows of one page of answers: it tells them apart by run, millisecond and kind."""
        answer = self.ask(EVENTS, key={"path": [asset]}, limit=limit, partitions=partitions)
        results = answer["assetOrError"]["assetEventHistory"]["results"]
        return list({(event["runId"], event["timestamp"], event["__typename"]): event for event in results}.values())

    def notes(self, asset: str, key: str) -> dict[str, str]:
        """The texts on the newest event of a partition."""
        [event, *_] = self.shown_events(asset, partitions=[key])
        return {entry["label"]: entry.get("text", "") for entry in event["metadataEntries"]} | {"kind": event["__typename"]}

    def checks(self, asset: str) -> dict[str, str | None]:
        """The status of each check for the latest materialization; None: "Not evaluated"."""
        answer = self.ask(CHECKS, key={"path": [asset]})["assetNodeOrError"]["assetChecksOrError"]["checks"]
        found = {check["name"]: check["executionForLatestMaterialization"] for check in answer}
        return {name: execution["status"] if execution else None for name, execution in found.items()}

    @contextmanager
    def services(self) -> Iterator[Services]:
        """A services for sensors."""
        made = Services(self.settings)
        try:
            yield made
        finally:
            made.close()


def _keys(assets: Sequence[str]) -> list[dict[str, Any]]:
    return [{"path": [asset]} for asset in assets]


@contextmanager
def ui_world(
    folder: Path, database_url: str, dagster_database_url: str, redis_url: str, patch: pytest.MonkeyPatch
) -> Iterator[UiWorld]:
    """The pages on an empty catalogue."""
    storage = {"custom": {"module": "phantoms_dagster.execution.storage", "class": "PooledPostgresStorage", "config": {}}}
    config = {
        "storage": storage,
        "run_launcher": {"module": __name__, "class": "LaterLauncher", "config": {}},
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
        "telemetry": {"enabled": False},
    }
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    ours = {
        "PHANTOMS_HOME": str(folder),
        "PHANTOMS_DATABASE_URL": database_url,
        "PHANTOMS_DAGSTER_DATABASE_URL": dagster_database_url,
        "PHANTOMS_REDIS_URL": redis_url,
        "PHANTOMS_SANDBOX": "on",
        "PHANTOMS_SANDBOX_URL": "http://127.0.0.1:9",
        "DAGSTER_HOME": str(folder),
        "DAGSTER_EVENT_BATCH_SIZE": "500",
    }
    for name, value in ours.items():
        patch.setenv(name, value)
    target = LoadableTargetOrigin(python_file=None, module_name="phantoms_dagster.definitions", attribute="defs")
    origin = InProcessCodeLocationOrigin(loadable_target_origin=target, location_name="phantoms")
    world = World(database_url)
    try:
        with (
            DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance,
            WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as process,
        ):
            yield UiWorld(world, instance, process, Settings())
    finally:
        world.engine.dispose()
        engine(dagster_database_url).dispose()

"""What a person does in the Dagster UI, through the GraphQL calls that the UI makes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from phantoms_dagster.domain.models import Brief
from phantoms_dagster.wiring import Workshop
from phantoms_dagster_tests.acceptance.conftest import SandboxProcess, StackProcess, wait_for
from phantoms_dagster_tests.integration.ui_world import BACKFILL, LAUNCH

pytestmark = pytest.mark.timeout(1200)

RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
STATS = """
query Stats($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    partitionStats { numMaterialized numFailed numPartitions }
    assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } }
  }
}
"""
SENSORS = """
mutation Stop($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }
"""
LIST_SENSORS = """
{ sensorsOrError(repositorySelector: {repositoryLocationName: "phantoms", repositoryName: "__repository__"}) {
  ... on Sensors { results { name id sensorState { id selectorId status } } } } }
"""
REEXECUTE = """
mutation Reexecute($params: ReexecutionParams!) {
  reexecutePartitionBackfill(reexecutionParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status }
    ... on PythonError { message }
  }
}
"""


def _keys(*names: str) -> list[dict[str, Any]]:
    return [{"path": [name]} for name in names]


def _titles(workshop: Workshop, titles: list[str]) -> list[str]:
    channels = workshop.channels()
    channel = next(iter(channels.values()))
    briefs = [Brief(title=t, channel=channel.name, platforms=tuple(channel.accounts)) for t in titles]
    catalogue = workshop.catalogue()
    catalogue.put_channels(channels.values())
    return [added.key for added in catalogue.add(briefs, source="test")]


def _approve_all(workshop: Workshop) -> None:
    decisions = workshop.decisions()
    for key in decisions.undecided():
        decisions.decide(key, approved=True, reviewer="test", via="cli")


def _statuses(stack: StackProcess, asset: str) -> dict[str, Any]:
    [node] = stack.ask(STATS, keys=_keys(asset))["assetNodes"]
    return {**node["partitionStats"], **node["assetPartitionStatuses"]}


def _stop_sensor(stack: StackProcess, name: str) -> None:
    sensors = stack.ask(LIST_SENSORS)["sensorsOrError"]["results"]
    [sensor] = [s for s in sensors if s["name"] == name]
    stopped = stack.ask(SENSORS, id=sensor["sensorState"]["id"])["stopSensor"]
    assert stopped["__typename"] != "PythonError", stopped


def test_a_person_materializes_three_stages_of_one_video_by_hand(stack: StackProcess) -> None:
    """With both sensors off, script..rendered_video of one partition in one run, as the UI's "Materialize selected" asks for."""
    stack.start()
    for sensor in ("advance_sensor", "release_sensor"):
        _stop_sensor(stack, sensor)
    workshop = stack.workshop
    try:
        [key] = _titles(workshop, ["Why the sky is blue"])
        wait_for(lambda: key not in workshop.catalogue().unregistered())
        stages = ("script", "voiceover", "rendered_video")
        tags = [{"key": "dagster/partition", "value": key}]
        launched = stack.ask(LAUNCH, keys=_keys(*stages), tags=tags, config={})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = launched["run"]["runId"]
        status = wait_for(lambda: _ended(stack, run))
        assert status == "SUCCESS"
        for stage in stages:
            assert _statuses(stack, stage)["materializedPartitions"] == [key]
        states = workshop.catalogue().stages(key)
        assert [states[s].state for s in stages] == ["done"] * 3
        assert states["approval"].state == "ready"

        config = {"ops": {"approval": {"config": {"decision": "APPROVE", "reviewer": "Ada", "note": "fine"}}}}
        launched = stack.ask(LAUNCH, keys=_keys("approval"), tags=tags, config=config)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = launched["run"]["runId"]
        assert wait_for(lambda: _ended(stack, run)) == "SUCCESS"
        approval = workshop.catalogue().stages(key)["approval"]
        assert approval.state == "done"
        assert approval.output is not None
        assert (approval.output["reviewer"], approval.output["note"]) == ("Ada", "fine")
    finally:
        workshop.close()
    assert stack.stop() == 0


def _ended(stack: StackProcess, run: str) -> str | None:
    status: str = stack.ask(RUN, id=run)["runOrError"]["status"]
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def test_two_of_six_renders_fail_and_only_these_two_are_made_again(stack: StackProcess, sandbox: SandboxProcess) -> None:
    """Four of six go on to be posted; after the fault is lifted, a FROM_FAILURE backfill makes exactly the two."""
    stack.start()
    workshop = stack.workshop
    try:
        keys = _titles(workshop, [f"Planet number {n}" for n in range(1, 7)])
        bad = [keys[1], keys[4]]
        for key in bad:
            sandbox.fault(route="shotstack.render", kind="status", status=400, match=key)
        wait_for(lambda: Counter(s.states["rendered_video"] for s in workshop.catalogue().videos()) == {"done": 4, "failed": 2})
        _approve_all(workshop)
        good = [key for key in keys if key not in bad]
        wait_for(lambda: _posted(workshop, good), seconds=600)
        stats = wait_for(lambda: (s := _statuses(stack, "rendered_video"))["numFailed"] == 2 and s)
        assert stats["numMaterialized"] == 4
        assert sorted(stats["failedPartitions"]) == sorted(bad)
        assert len(sandbox.ledger("post")) == 12

        renders_before = len(sandbox.ledger("render"))
        params = {"assetSelection": _keys("rendered_video"), "partitionNames": keys}
        launched = stack.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        first = launched["backfillId"]
        assert wait_for(lambda: _backfill_ended(stack, first)) == "COMPLETED_FAILED"
        assert _statuses(stack, "rendered_video")["numMaterialized"] == 4
        assert len(sandbox.ledger("render")) == renders_before, "a finished render was made again"

        sandbox.heal()
        params = {"parentRunId": first, "strategy": "FROM_FAILURE"}
        launched = stack.ask(REEXECUTE, params=params)["reexecutePartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        assert wait_for(lambda: _backfill_ended(stack, launched["backfillId"])) == "COMPLETED_SUCCESS"
        assert _statuses(stack, "rendered_video")["numMaterialized"] == 6
        renders = sandbox.ledger("render")[renders_before:]
        assert sorted(r["video_key"] for r in renders) == sorted(bad)
        assert _statuses(stack, "rendered_video")["numFailed"] == 0
        wait_for(lambda: len(workshop.decisions().undecided()) == 2)
        _approve_all(workshop)
        wait_for(lambda: _posted(workshop, keys), seconds=600)
        posts = Counter((p["account"], p["remote_id"]) for p in sandbox.ledger("post"))
        assert len(posts) == 18
        assert set(posts.values()) == {1}
    finally:
        workshop.close()
    assert stack.stop() == 0


def _backfill_ended(stack: StackProcess, backfill: str) -> str | None:
    status: str = stack.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]
    return status if status.startswith(("COMPLETED", "FAILED", "CANCELED")) else None


def _posted(workshop: Workshop, keys: list[str]) -> bool:
    rows = workshop.catalogue().videos(keys=keys)
    return all(row.states[f"{p}/post"] == "done" for row in rows for p in row.platforms)

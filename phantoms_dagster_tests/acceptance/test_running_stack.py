"""What people do with a stack that runs: on the command line, and in the Dagster UI, through the GraphQL calls that the UI makes.

One stack serves all of these tests, in their order: each looks at its own videos, and the last one stops the sensors.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from phantoms_dagster.domain.models import Brief
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.acceptance.conftest import SandboxProcess, StackProcess, open_sandbox, open_stack, wait_for
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


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """The sandbox of the stack."""
    with open_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess) -> Iterator[StackProcess]:
    """A stack that runs."""
    with open_stack(tmp_path_factory.mktemp("stack"), sandbox) as running:
        running.start()
        yield running
        assert running.stop() == 0


@pytest.fixture
def services(stack: StackProcess, sandbox: SandboxProcess) -> Iterator[Services]:
    """The catalogue and the tables of the stack. Faults that a test has left are lifted."""
    opened = stack.services
    try:
        yield opened
    finally:
        opened.close()
        sandbox.heal()


def _keys(*names: str) -> list[dict[str, Any]]:
    return [{"path": [name]} for name in names]


def _titles(services: Services, titles: list[str]) -> list[str]:
    channels = services.channels()
    channel = next(iter(channels.values()))
    briefs = [Brief(title=t, channel=channel.name, platforms=tuple(channel.accounts)) for t in titles]
    catalogue = services.catalogue()
    catalogue.put_channels(channels.values())
    return [added.key for added in catalogue.add(briefs, source="test")]


def _approve(services: Services, keys: list[str]) -> None:
    decisions = services.decisions()
    for key in set(decisions.undecided()) & set(keys):
        decisions.decide(key, approved=True, reviewer="test", via="cli")


def _statuses(stack: StackProcess, asset: str) -> dict[str, Any]:
    [node] = stack.ask(STATS, keys=_keys(asset))["assetNodes"]
    return {**node["partitionStats"], **node["assetPartitionStatuses"]}


def _stop_sensor(stack: StackProcess, name: str) -> None:
    sensors = stack.ask(LIST_SENSORS)["sensorsOrError"]["results"]
    [sensor] = [s for s in sensors if s["name"] == name]
    stopped = stack.ask(SENSORS, id=sensor["sensorState"]["id"])["stopSensor"]
    assert stopped["__typename"] != "PythonError", stopped


def _letters(stack: StackProcess, *arguments: str) -> list[dict[str, Any]]:
    listed = stack.phantoms("dead-letters", "list", "--json", *arguments)
    assert listed.returncode == 0, listed.stderr
    letters: list[dict[str, Any]] = json.loads(listed.stdout)["letters"]
    return letters


def test_replaying_everything_after_a_fixed_fault_drains_the_dead_letters_to_zero(
    stack: StackProcess, sandbox: SandboxProcess, services: Services
) -> None:
    """The morning after: a provider refused everything all night, the cause is fixed, and one command drains the queue.

    Discarding asks for a reason and keeps the record.
    """
    refused = json.dumps({"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}})
    sandbox.fault(route="openai.chat", kind="status", status=401, body=refused)
    keys = _titles(services, [f"Island {n}" for n in range(1, 6)])
    letters = wait_for(lambda: (found := _letters(stack)) and len(found) == len(keys) and found)
    assert {(letter["stage"], letter["provider"], letter["error_class"]) for letter in letters} == {
        ("script", "openai", "permanent")
    }

    unwanted = keys[0]
    refused_discard = stack.phantoms("dead-letters", "discard", unwanted)
    assert refused_discard.returncode == 2
    assert "reason" in refused_discard.stderr
    assert len(_letters(stack)) == len(keys)
    assert stack.phantoms("dead-letters", "discard", unwanted, "--reason", "the topic is stale").returncode == 0
    [kept] = _letters(stack, "--state", "discarded")
    assert kept["closed_reason"] == "the topic is stale"

    sandbox.heal()
    assert stack.phantoms("dead-letters", "replay", "--all").returncode == 0
    assert _letters(stack) == []
    wait_for(lambda: all(r.states["script"] == "done" for r in services.catalogue().videos(keys=keys[1:])))
    assert _letters(stack) == []
    assert services.catalogue().stages(unwanted)["script"].state == "discarded"


def test_two_of_six_renders_fail_and_only_these_two_are_made_again(
    stack: StackProcess, sandbox: SandboxProcess, services: Services
) -> None:
    """Four of six go on to be posted; after the fault is lifted, a FROM_FAILURE backfill makes exactly the two."""
    keys = _titles(services, [f"Planet number {n}" for n in range(1, 7)])
    bad = [keys[1], keys[4]]
    for key in bad:
        sandbox.fault(route="shotstack.render", kind="status", status=400, match=key)
    wait_for(
        lambda: Counter(s.states["rendered_video"] for s in services.catalogue().videos(keys=keys)) == {"done": 4, "failed": 2}
    )
    _approve(services, keys)
    good = [key for key in keys if key not in bad]
    wait_for(lambda: _posted(services, good), seconds=600)
    stats = wait_for(lambda: (s := _statuses(stack, "rendered_video"))["numFailed"] == 2 and s)
    assert set(stats["materializedPartitions"]) & set(keys) == set(good)
    assert sorted(stats["failedPartitions"]) == sorted(bad)
    assert len(sandbox.ledger("post")) == 12

    renders_before = len(_renders(sandbox, keys))
    params = {"assetSelection": _keys("rendered_video"), "partitionNames": keys}
    launched = stack.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    first = launched["backfillId"]
    assert wait_for(lambda: _backfill_ended(stack, first)) == "COMPLETED_FAILED"
    assert set(_statuses(stack, "rendered_video")["materializedPartitions"]) & set(keys) == set(good)
    assert len(_renders(sandbox, keys)) == renders_before, "a finished render was made again"

    sandbox.heal()
    params = {"parentRunId": first, "strategy": "FROM_FAILURE"}
    launched = stack.ask(REEXECUTE, params=params)["reexecutePartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    assert wait_for(lambda: _backfill_ended(stack, launched["backfillId"])) == "COMPLETED_SUCCESS"
    assert set(_statuses(stack, "rendered_video")["materializedPartitions"]) >= set(keys)
    assert sorted(_renders(sandbox, keys)[renders_before:]) == sorted(bad)
    assert _statuses(stack, "rendered_video")["numFailed"] == 0
    wait_for(lambda: set(bad) <= set(services.decisions().undecided()))
    _approve(services, keys)
    wait_for(lambda: _posted(services, keys), seconds=600)
    posts = Counter((p["account"], p["remote_id"]) for p in sandbox.ledger("post"))
    assert len(posts) == 18
    assert set(posts.values()) == {1}


def _renders(sandbox: SandboxProcess, keys: list[str]) -> list[str]:
    """The videos of the renders that were paid for, of these alone: those of other tests may still go on."""
    return [render["video_key"] for render in sandbox.ledger("render") if render["video_key"] in keys]


def _backfill_ended(stack: StackProcess, backfill: str) -> str | None:
    status: str = stack.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]
    return status if status.startswith(("COMPLETED", "FAILED", "CANCELED")) else None


def _posted(services: Services, keys: list[str]) -> bool:
    rows = services.catalogue().videos(keys=keys)
    return all(row.states[f"{p}/post"] == "done" for row in rows for p in row.platforms)


def test_a_person_materializes_three_stages_of_one_video_by_hand(stack: StackProcess, services: Services) -> None:
    """With both sensors off, script..rendered_video of one partition in one run, as the UI's "Materialize selected" asks for."""
    for sensor in ("advance_sensor", "release_sensor"):
        _stop_sensor(stack, sensor)
    [key] = _titles(services, ["Why the sky is blue"])
    wait_for(lambda: key not in services.catalogue().unregistered())
    stages = ("script", "voiceover", "rendered_video")
    tags = [{"key": "dagster/partition", "value": key}]
    launched = stack.ask(LAUNCH, keys=_keys(*stages), tags=tags, config={})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]
    status = wait_for(lambda: _ended(stack, run))
    assert status == "SUCCESS"
    for stage in stages:
        assert _statuses(stack, stage)["materializedPartitions"].count(key) == 1
    states = services.catalogue().stages(key)
    assert [states[s].state for s in stages] == ["done"] * 3
    assert states["approval"].state == "ready"

    config = {"ops": {"approval": {"config": {"decision": "APPROVE", "reviewer": "Ada", "note": "fine"}}}}
    launched = stack.ask(LAUNCH, keys=_keys("approval"), tags=tags, config=config)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]
    assert wait_for(lambda: _ended(stack, run)) == "SUCCESS"
    approval = services.catalogue().stages(key)["approval"]
    assert approval.state == "done"
    assert approval.output is not None
    assert (approval.output["reviewer"], approval.output["note"]) == ("Ada", "fine")


def _ended(stack: StackProcess, run: str) -> str | None:
    status: str = stack.ask(RUN, id=run)["runOrError"]["status"]
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

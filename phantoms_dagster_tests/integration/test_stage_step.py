"""A step in a chain: how long its videos may wait there, and when its checks are evaluated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace

import dagster as dg
import pytest

from phantoms_dagster.defs import tags
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.stage_step import CHAIN_MAX_WAIT_SECONDS
from phantoms_dagster.domain.claims import NOT_WANTED, Result, RunContext
from phantoms_dagster.domain.models import ApprovalOutput
from phantoms_dagster.domain.stages import Stage

KEY = "20261122-sea-0001"


class Runner:
    """Notes who asks for which stage, and has nothing to do but what `results` says."""

    def __init__(self) -> None:
        self.asked: dict[str, RunContext] = {}
        self.results: dict[str, list[Result]] = {}

    async def run(
        self, stage: Stage, keys: Sequence[str], context: RunContext, *, regenerate: bool, on_result: Callable[[Result], None]
    ) -> list[Result]:
        assert list(keys) == [KEY]
        self.asked[stage.name] = context
        results = self.results.get(stage.name, [])
        for result in results:
            on_result(result)
        return results


@pytest.fixture
def runner() -> Runner:
    return Runner()


class Standing:
    """No letter is open, and the only video waits for a person. Counts the queries."""

    def __init__(self) -> None:
        self.asked = 0

    async def open_letters(self) -> dict[str, int]:
        self.asked += 1
        return {}

    async def undecided(self, *, limit: int) -> list[str]:
        return [KEY][:limit]


def carry_out(
    runner: Runner, job: str, run_tags: dict[str, str], standing: Standing | None = None, *, succeeds: bool = True
) -> Sequence[dg.DagsterEvent]:
    """Every event of a run of the job, which must succeed."""

    async def pipeline() -> SimpleNamespace:
        return SimpleNamespace(runner=runner, standing=standing)

    with closing(asyncio.Runner()) as loop, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(VIDEOS, [KEY])
        services = SimpleNamespace(pipeline=pipeline, loop=loop, media_files=None)
        definitions = build_definitions(resource_overrides={"services": dg.ResourceDefinition.hardcoded_resource(services)})
        done = definitions.resolve_job_def(job).execute_in_process(
            instance=instance, partition_key=KEY, tags=run_tags, raise_on_error=False
        )
        assert done.success is succeeds
        logged = instance.all_logs(done.run_id)
        return [entry.dagster_event for entry in logged if entry.dagster_event is not None]


def max_wait(runner: Runner) -> dict[str, float | None]:
    return {name: context.max_wait_seconds for name, context in runner.asked.items()}


def test_in_a_planned_chain_no_platforms_wait_holds_up_another(runner: Runner) -> None:
    carry_out(runner, "release_job", {tags.PLANNED: "true"})
    waits = max_wait(runner)
    assert waits.pop("approval") is None
    assert len(waits) == 6
    assert set(waits.values()) == {CHAIN_MAX_WAIT_SECONDS}
    assert {context.by for context in runner.asked.values()} == {"sensor"}


def test_what_a_person_asked_for_and_what_runs_alone_may_wait(runner: Runner) -> None:
    carry_out(runner, "release_job", {})
    assert set(max_wait(runner).values()) == {None}
    assert {context.by for context in runner.asked.values()} == {"person"}
    carry_out(runner, "youtube_post_job", {tags.PLANNED: "true"})
    assert max_wait(runner)["youtube/post"] is None


@pytest.mark.usefixtures("fast_paths")  # the public way logs checks outside of the run: see `test_dagster_fallbacks`
def test_the_checks_of_all_steps_of_a_chain_are_logged_once_when_the_last_step_is_over(runner: Runner) -> None:
    decided = ApprovalOutput(reviewer="Ada", content_sha256="0" * 64, decided_at=datetime(2026, 11, 22, tzinfo=UTC))
    runner.results = {
        "approval": [Result(KEY, "done", decided)],
        "instagram/variant": [Result(KEY, "deferred", error_class=NOT_WANTED)],
        "tiktok/variant": [Result(KEY, "failed", message="a letter")],
    }
    standing = Standing()
    events = carry_out(runner, "release_job", {tags.PLANNED: "true"}, standing, succeeds=False)
    kinds = [event.event_type_value for event in events]
    checks = [
        (event.step_key, event.asset_check_evaluation_data)
        for event in events
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    assert [(step, data.check_name, data.passed) for step, data in checks] == [
        ("approval", "no_dead_letters", True),
        ("approval", "every_film_is_decided_on", False),
        ("tiktok_variant", "no_dead_letters", True),
    ]
    assert standing.asked == 1
    first = kinds.index("ASSET_CHECK_EVALUATION")
    assert max(place for place, kind in enumerate(kinds) if kind.startswith("STEP_")) < first < kinds.index("PIPELINE_FAILURE")

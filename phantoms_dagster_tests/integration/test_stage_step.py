"""How long a step lets its videos wait inside a run: in a chain one platform must not hold up another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from types import SimpleNamespace

import dagster as dg
import pytest

from phantoms_dagster.defs import tags
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.stage_step import CHAIN_PATIENCE_SECONDS
from phantoms_dagster.domain.stages import Stage
from phantoms_dagster.domain.work import Result, RunContext

KEY = "20261122-sea-0001"


class Runner:
    """Notes who asks for which stage, and has nothing to do."""

    def __init__(self) -> None:
        self.asked: dict[str, RunContext] = {}

    async def run(
        self, stage: Stage, keys: Sequence[str], context: RunContext, *, regenerate: bool, on_result: Callable[[Result], None]
    ) -> list[Result]:
        assert list(keys) == [KEY]
        self.asked[stage.name] = context
        return []


@pytest.fixture
def runner() -> Runner:
    return Runner()


def carry_out(runner: Runner, job: str, run_tags: dict[str, str]) -> None:
    async def pipeline() -> SimpleNamespace:
        return SimpleNamespace(runner=runner)

    with closing(asyncio.Runner()) as loop, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(VIDEOS, [KEY])
        workshop = SimpleNamespace(pipeline=pipeline, loop=loop, shelf=None)
        definitions = build_definitions(resource_overrides={"workshop": dg.ResourceDefinition.hardcoded_resource(workshop)})
        done = definitions.resolve_job_def(job).execute_in_process(instance=instance, partition_key=KEY, tags=run_tags)
        assert done.success


def patience(runner: Runner) -> dict[str, float | None]:
    return {name: context.patience_seconds for name, context in runner.asked.items()}


def test_in_a_planned_chain_no_platforms_wait_holds_up_another(runner: Runner) -> None:
    carry_out(runner, "release_job", {tags.PLANNED: "true"})
    waits = patience(runner)
    assert waits.pop("approval") is None
    assert len(waits) == 6
    assert set(waits.values()) == {CHAIN_PATIENCE_SECONDS}
    assert {context.by for context in runner.asked.values()} == {"sensor"}


def test_what_a_person_asked_for_and_what_runs_alone_may_wait(runner: Runner) -> None:
    carry_out(runner, "release_job", {})
    assert set(patience(runner).values()) == {None}
    assert {context.by for context in runner.asked.values()} == {"person"}
    carry_out(runner, "youtube_post_job", {tags.PLANNED: "true"})
    assert patience(runner)["youtube/post"] is None

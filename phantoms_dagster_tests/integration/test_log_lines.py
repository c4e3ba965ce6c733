"""What a run writes to its log: each line says which video, stage, attempt and run it is about, calls to providers included."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import logs
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.pipeline import open_pipeline
from phantoms_dagster_tests.integration.stage_world import SENSOR, FakeClock, World, open_world, output_of
from phantoms_dagster_tests.reading import metrics


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_each_attempt_of_each_video_has_lines_of_its_own(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(logs={"format": "json"}))
    keys = world.add(5)
    tried: set[str] = set()

    async def write(task: StageTask) -> StageResult:
        logging.getLogger("phantoms_dagster.providers.test").info("writing for %s", task.video.key)
        if task.video.key not in tried:
            tried.add(task.video.key)
            raise Transient("busy", provider="openai")
        return StageResult(output_of("script"))

    runner = StageRunner(
        store=world.store(),
        use_cases={"script": write},
        clock=FakeClock(),
        policy=RetryPolicy(),
        random=lambda: 0.5,
        new_owner=lambda: "o",
        in_flight=5,
        heartbeat_seconds=60,
    )
    assert {result.outcome for result in await runner.run(stage("script"), keys, SENSOR)} == {"done"}
    lines = written(capsys)
    about_videos = [line for line in lines if line["message"].startswith("writing for")]
    assert len(about_videos) == 10
    assert all(line["message"].endswith(line["video"]) for line in about_videos)
    assert {(line["stage"], line["run_id"]) for line in lines} == {("script", SENSOR.run_id)}
    for key in keys:
        attempts = [line["attempt"] for line in lines if line["video"] == key]
        assert len(attempts) == 4  # two lines for each of two attempts
        assert len(set(attempts)) == 2
    assert sum(line["message"].endswith("Transient: busy") for line in lines) == 5


async def test_the_pipelines_calls_are_lines_at_debug_and_carry_no_token(
    database_url: str, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Settings(
        paths={"home": tmp_path},
        database={"url": database_url},
        redis={"url": redis_url},
        sandbox={"mode": "on", "url": "http://127.0.0.1:1"},
        logs={"format": "json", "level": "DEBUG"},
    )
    async with open_pipeline(given, Endpoints(given), FakeClock(), database_url) as pipeline:
        with pytest.raises(Transient):
            await metrics(pipeline.own.metrics[Platform("instagram")], "main", ["42"])
    (line,) = [line for line in written(capsys) if line["logger"] == "phantoms_dagster.calls"]
    wanted = {"integration": "instagram_metrics", "account": "main", "host": "127.0.0.1", "outcome": "failed", "level": "DEBUG"}
    assert {name: line[name] for name in wanted} == wanted
    assert line["why"].startswith("Connect")
    assert {"seconds", "waited"} <= set(line)
    assert "sandbox-main" not in json.dumps(line)

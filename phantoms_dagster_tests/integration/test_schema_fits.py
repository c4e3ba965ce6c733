"""Code and tables of different versions: no video is decided, and work continues by itself once they match."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import dagster as dg
import pytest

from phantoms_dagster.defs.away import skips_while_the_store_is_away
from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import SchemaMismatch
from phantoms_dagster.execution import run_worker
from phantoms_dagster.settings import Settings
from phantoms_dagster.store import schema_version
from phantoms_dagster.store.migrate import pending, upgrade
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.run_world import MODULE, run_world
from phantoms_dagster_tests.integration.stage_world import PERSON, World, open_world
from phantoms_dagster_tests.integration.test_runner import SCRIPT_STAGE, Steps, runner


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    schema_version._checked_at.clear()
    async with open_world(database_url) as opened:
        yield opened


def set_version(world: World, version: str) -> None:
    world.write("UPDATE phantoms.alembic_version SET version_num = :version", version=version)


def test_the_revisions_that_this_code_knows_are_those_of_its_migrations(empty_database_url: str) -> None:
    assert list(schema_version.revisions()) == pending(empty_database_url)
    upgrade(empty_database_url)
    assert pending(empty_database_url) == []


@pytest.mark.parametrize(("version", "said"), [("0001", "older than this code"), ("9999", "newer than this code")])
async def test_a_run_on_other_tables_decides_nothing_and_works_when_they_fit(world: World, version: str, said: str) -> None:
    key = world.add()[0]
    set_version(world, version)
    steps = Steps()
    with pytest.raises(SchemaMismatch, match=said):
        await runner(world, steps).run(SCRIPT_STAGE, [key], PERSON)
    assert (steps.tries, world.states("script"), world.letters(key)) == (0, ["ready"], [])
    set_version(world, schema_version.revisions()[-1])
    assert (await runner(world, steps).run(SCRIPT_STAGE, [key], PERSON))[0].outcome == "done"


async def test_a_migration_in_the_middle_of_a_run_writes_no_letter(world: World) -> None:
    key = world.add()[0]

    async def use_case(task: StageTask) -> StageResult:
        world.write("ALTER TABLE phantoms.attempts RENAME COLUMN response TO answer")
        set_version(world, "9999")
        try:
            await task.attempt.received({"paid": True})
        finally:
            world.write("ALTER TABLE phantoms.attempts RENAME COLUMN answer TO response")
        raise AssertionError("it was not written")

    with pytest.raises(SchemaMismatch, match="newer"):
        await runner(world, use_case).run(SCRIPT_STAGE, [key], PERSON)
    assert not world.letters(key)


async def test_sensors_and_workers_leave_other_tables_alone_and_say_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", world.url)
    looks: list[str] = []
    services = Services(Settings(database={"url": world.url}))

    @skips_while_the_store_is_away
    def sensor(services: Services) -> dg.SkipReason:
        looks.append(services.database_url)
        return dg.SkipReason("nothing new")

    set_version(world, "0001")
    assert "older than this code" in (sensor(services=services).skip_message or "")
    assert "older than this code" in run_worker.schema_problem()
    assert not looks
    set_version(world, schema_version.revisions()[-1])
    assert run_worker.schema_problem() == ""
    assert sensor(services=services).skip_message == "nothing new"
    services.close()


def test_the_check_before_a_reload_imports_all_that_workers_do(
    tmp_path: Path, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_world(tmp_path, dagster_database_url, redis_url, monkeypatch) as world:
        code = (
            "import sys\nfrom phantoms_dagster.execution import worker\n"
            f"ended = worker.main(['--check', '--module', {MODULE!r}])\n"
            "needed = ('execution.run_worker', 'execution.reaper', 'execution.launcher', 'execution.storage')\n"
            "print(ended, [name for name in needed if 'phantoms_dagster.' + name not in sys.modules])"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], env=world.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.stdout.splitlines()[-1:] == ["0 []"], ended.stderr

"""Each command imports only what it needs, because an import costs more than the work of most commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from phantoms_dagster.domain.channels import default_text

# Each is large, and none is needed to look at videos or to decide.
HEAVY = {
    "aiohttp",
    "alembic",
    "apprise",
    "av",
    "dagster",
    "fontTools",
    "grpc",
    "httpx",
    "imageio_ffmpeg",
    "kokoro_onnx",
    "numpy",
    "obstore",
    "onnxruntime",
    "openai",
    "pandas",
    "redis",
    "rq",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
}
# The help of the program needs no database and no settings either.
STORES = {"sqlalchemy", "psycopg", "pydantic", "pydantic_settings", "yaml"}
RUN = """
import json, sys
from phantoms_dagster.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
finally:
    print("modules:" + json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def modules(arguments: Sequence[str], **environment: str) -> set[str]:
    """The modules that a process has imported when the command is done. The command must succeed."""
    command = [sys.executable, "-c", RUN, *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PHANTOMS_")}
    result = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=60, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    return set(json.loads(result.stderr.rpartition("modules:")[2]))


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["help", "alone"])
def test_the_programs_help_imports_no_command(arguments: list[str], tmp_path: Path) -> None:
    found = modules(arguments or ["--help"], PHANTOMS_HOME=str(tmp_path))
    assert not found & (HEAVY | STORES)
    assert {name for name in found if name.startswith("phantoms_dagster.cli.")} == {
        "phantoms_dagster.cli.console",
        "phantoms_dagster.cli.entry",
        "phantoms_dagster.cli.lazy",
        "phantoms_dagster.cli.main",
        "phantoms_dagster.cli.sentence",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["show", "octopuses"],
        ["edit", "octopuses", "--priority", "1"],
        ["dead-letters", "list"],
        ["approve", "--all"],
        ["retire", "--finished-before", "1d"],
        ["accounts"],
        ["calendar"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_who_looks_or_decides_imports_no_provider_no_dagster_and_no_table_tools(
    arguments: list[str], database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "channels.yaml").write_text(default_text(), encoding="utf-8")  # `phantoms up` writes one
    world = {"PHANTOMS_HOME": str(tmp_path), "PHANTOMS_DATABASE_URL": database_url}
    assert not modules(["add", "Why octopuses have three hearts"], **world) & HEAVY
    assert not modules(arguments, **world) & HEAVY


def test_who_looks_at_videos_that_wait_asks_redis_without_any_http_client(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "channels.yaml").write_text(default_text(), encoding="utf-8")
    world = {"PHANTOMS_HOME": str(tmp_path), "PHANTOMS_DATABASE_URL": database_url, "PHANTOMS_REDIS_URL": redis_url}
    modules(["add", "Why octopuses have three hearts"], **world)
    assert modules(["status"], **world) & HEAVY == {"redis"}


@pytest.mark.parametrize("module", ["phantoms_dagster.cli.up", "phantoms_dagster.cli.metrics", "phantoms_dagster.wiring"])
def test_what_stays_running_imports_no_provider_no_dagster_and_no_table_tools(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not set(json.loads(result.stdout)) & (HEAVY - {"aiohttp", "httpx", "redis"})


def test_the_parent_of_workers_imports_before_it_forks_what_commands_do_without() -> None:
    code = (
        "import json, sys; from phantoms_dagster.execution import worker; worker.load(worker.MODULE); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    environment = {**os.environ, "PHANTOMS_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    found = set(json.loads(result.stdout.splitlines()[-1]))
    assert found >= {"phantoms_dagster.wiring.pipeline", "openai", "aiohttp", "sqlalchemy.ext.asyncio", "numpy"}
    assert "pandas" not in found  # 20 MB all day for a table that is made once an hour

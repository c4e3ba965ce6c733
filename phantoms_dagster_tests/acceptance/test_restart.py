"""`phantoms up` is restarted after its sandbox was killed: addresses, links and results are the same as before."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.cli.graphql import launch_job
from phantoms_dagster.domain.models import Brief
from phantoms_dagster_tests.acceptance.conftest import StackProcess, wait_for

pytestmark = pytest.mark.timeout(1200)

READ = """
query { assetOrError(assetKey: {path: ["post_metrics"]}) { ... on Asset { assetMaterializations(limit: 1) {
  metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }
"""


@pytest.fixture
def own_sandbox(tmp_path: Path) -> StackProcess:
    """A stack that is not started yet and has a sandbox of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_", "DAGSTER_"))}
    return StackProcess(tmp_path / "home", {**environment, "PHANTOMS_SANDBOX": "on"})


def _links(stack: StackProcess, key: str) -> list[str]:
    services = stack.services
    try:
        outputs = [row.output for row in services.catalogue().stages(key).values() if row.output]
        return sorted(str(o["url"]) for o in outputs if o["kind"] == "post")
    finally:
        services.close()


def _post(stack: StackProcess) -> str:
    """One video on all platforms; its key."""
    services = stack.services
    try:
        channel = next(iter(services.channels().values()))
        brief = Brief(title="The story of a bridge", channel=channel.name, platforms=tuple(channel.accounts))
        [added] = services.catalogue().add([brief], source="test")

        def states() -> Mapping[str, str]:
            return services.catalogue().videos(keys=[added.key])[0].states

        wait_for(lambda: states()["rendered_video"] == "done")
        services.decisions().decide(added.key, approved=True, reviewer="test", via="cli")
        wait_for(lambda: all(states()[f"{platform}/post"] == "done" for platform in brief.platforms))
        return str(added.key)
    finally:
        services.close()


def _read_back(stack: StackProcess) -> dict[str, Any]:
    """What a reading of results says: how many posts, and how many are missing."""
    assert stack.settings.web.url is not None
    httpx.post(f"{stack.settings.sandbox.url}/_sandbox/advance", json={"seconds": 86_400}).raise_for_status()
    launch_job(stack.settings.web.url, "analytics_job", timeout=300)
    entries = stack.ask(READ)["assetOrError"]["assetMaterializations"][0]["metadataEntries"]
    return {entry["label"]: entry["intValue"] for entry in entries if "intValue" in entry}


def _kill_sandbox(stack: StackProcess) -> None:
    mark = f"{stack.home}/sandbox".encode()
    [pid] = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _has(p / "cmdline", mark)]
    os.kill(pid, signal.SIGKILL)


def _has(file: Path, mark: bytes) -> bool:
    try:
        return mark in file.read_bytes().replace(b" ", b"\0").split(b"\0")
    except OSError:
        return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def test_a_restart_keeps_addresses_links_and_results(own_sandbox: StackProcess) -> None:
    """After each restart every link in `show` was dead and every post missing from the results."""
    stack = own_sandbox
    stack.start()
    try:
        key = _post(stack)
        addresses = (stack.settings.web.url, stack.settings.sandbox.url)
        links = _links(stack, key)
        assert len(links) == 3
        _kill_sandbox(stack)
        for link in links:
            wait_for(functools.partial(_answers, link), seconds=60)
        assert stack.stop() == 0
        stack.start()
        assert (stack.settings.web.url, stack.settings.sandbox.url) == addresses
        assert all(_answers(link) for link in links)
        read = _read_back(stack)
        assert (read["posts"], read["missing"], read["failed"]) == (3, 0, 0)
    finally:
        assert stack.stop() == 0

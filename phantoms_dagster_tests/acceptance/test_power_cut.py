"""Everything is killed in the middle and started again: each video continues from its last finished stage and is posted once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from phantoms_dagster.domain.models import Brief
from phantoms_dagster_tests.acceptance.conftest import SandboxProcess, StackProcess, wait_for

pytestmark = pytest.mark.timeout(1200)


def _run_processes(home: Path) -> list[int]:
    """The work-horses of this stack: children of the workers that the parent of workers has forked."""
    mark = f"PHANTOMS_HOME={home}".encode()
    parents: dict[int, int] = {}
    for entry in [e for e in Path("/proc").iterdir() if e.name.isdigit()]:
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and b"execution.worker" in (entry / "cmdline").read_bytes():
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, PermissionError):
            continue
    return [pid for pid, parent in parents.items() if parents.get(parent) in parents]


def test_a_killed_run_and_then_a_power_cut_cost_nothing_that_was_finished(stack: StackProcess, sandbox: SandboxProcess) -> None:
    """kill -9 of the run process while it renders, then kill -9 of everything while posts go out, then a restart."""
    stack.start()
    services = stack.services
    channel = next(iter(services.channels().values()))
    titles = [f"The story of bridge {n}" for n in range(1, 5)]
    briefs = [Brief(title=t, channel=channel.name, platforms=tuple(channel.accounts)) for t in titles]
    catalogue = services.catalogue()
    keys = [added.key for added in catalogue.add(briefs, source="test")]
    sandbox.fault(route="shotstack.status", kind="latency", seconds=3.0)

    wait_for(lambda: any(r.states["rendered_video"] == "running" for r in catalogue.videos(keys=keys)))
    wait_for(lambda: len(sandbox.ledger("render")) >= 1)
    victims = wait_for(lambda: _run_processes(stack.home))
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    sandbox.heal()
    wait_for(lambda: all(r.states["rendered_video"] == "done" for r in catalogue.videos(keys=keys)))
    assert len(sandbox.ledger("script")) == len(keys)

    sandbox.fault(route="youtube.upload", kind="latency", seconds=2.0)
    sandbox.fault(route="instagram.publish", kind="latency", seconds=2.0)
    for key in services.decisions().undecided():
        services.decisions().decide(key, approved=True, reviewer="test", via="cli")
    wait_for(lambda: any(r.states[f"{p}/post"] == "running" for r in catalogue.videos(keys=keys) for p in r.platforms))
    services.close()
    stack.kill_everything()
    sandbox.heal()

    stack.start()
    services = stack.services
    try:
        catalogue = services.catalogue()
        wait_for(
            lambda: all(r.states[f"{p}/post"] == "done" for r in catalogue.videos(keys=keys) for p in r.platforms), seconds=600
        )
        posts = Counter((p["platform"], p["remote_id"]) for p in sandbox.ledger("post"))
        assert len(posts) == 3 * len(keys)
        assert set(posts.values()) == {1}
        assert len(sandbox.ledger("script")) == len(keys), "a finished script was written again"
        renders = Counter(r["video_key"] for r in sandbox.ledger("render"))
        assert renders == dict.fromkeys(keys, 1), "a finished render was billed again"
    finally:
        services.close()
    assert stack.stop() == 0

"""The benchmarks' command and their harness, at the smallest size that means something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.openai import routes as openai
from phantoms_dagster_tests.benchmarks.pools import most_within, out_of_order
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.storm import MIX, brew

ROOT = Path(__file__).parents[2]


def command(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "phantoms_dagster_tests.benchmarks", *arguments]
    return subprocess.run(program, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=seconds, check=False)


def test_a_storm_over_six_videos_leaves_nothing_stuck_and_nothing_doubled() -> None:
    # Without the kinds after which an adapter waits for half a minute and more, as the real services ask.
    mix = ("--share", "0.2", "--kinds", "429,500,drop_after,malformed")
    done = command("storm", "--videos", "6", "--workers", "2", *mix, "--seconds", "90", "--seed", "5", "--json")
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], done.returncode) == (True, [], 0), done.stdout + done.stderr
    figures = told["figures"]
    assert figures["posts wanted"] == 18
    ends = ("posted exactly once", "ended in a dead letter", "ended as unknown, never sent again")
    assert sum(figures[name] for name in ends) == 18
    assert figures["posted exactly once"] > 0


def test_every_post_of_four_videos_comes_out_once_while_workers_and_stores_are_taken_away() -> None:
    done = command("random_kills", "--posts", "20", "--workers", "2", "--pause", "3", "--seconds", "240", "--json", seconds=400)
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], done.returncode) == (True, [], 0), done.stdout + done.stderr


def test_every_slot_of_a_few_simulated_days_is_kept() -> None:
    done = command("year", "--days", "4", "--json", seconds=300)
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], done.returncode) == (True, [], 0), done.stdout + done.stderr
    assert (told["figures"]["slots"], told["figures"]["slots kept"]) == (20, 20)


def test_short_troubles_one_after_another_end_with_every_post_once_or_waiting_for_its_account() -> None:
    done = command("weather", "--scale", "0.03", "--workers", "2", "--limit", "4000", "--json", seconds=420)
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], done.returncode) == (True, [], 0), done.stdout + done.stderr
    assert told["figures"]["posts wanted"] == 12


def test_every_number_of_a_few_days_is_stored_and_publishing_never_waits_for_reading() -> None:
    done = command("readback", "--posts", "4", "--days", "2", "--snapshots", "3000", "--json", seconds=300)
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], done.returncode) == (True, [], 0), done.stdout + done.stderr


async def test_the_sandbox_notes_when_each_call_came_whatever_came_of_it() -> None:
    sandbox = Sandbox()
    sandbox.faults.append(Fault("openai.models", status=503, times=1))
    began = time.time()
    async with TestServer(application(sandbox, [openai.routes(sandbox)])) as server, httpx.AsyncClient(trust_env=False) as client:
        for _ in range(2):
            await client.get(str(server.make_url("/openai/v1/models")), headers={"Authorization": "Bearer sandbox-key-0123456789"})
        told = (await client.get(str(server.make_url("/_sandbox/ledger")), params={"arrivals": "openai.*"})).json()
        assert "arrivals" not in (await client.get(str(server.make_url("/_sandbox/ledger")))).json()
    first, second = told["arrivals"]["openai.models"]
    assert began <= first <= second <= time.time()


def test_a_wrong_name_is_answered_with_the_names_there_are() -> None:
    done = command("strom")
    assert done.returncode == 2
    assert "there is no benchmark 'strom'" in done.stderr
    assert all(name in done.stderr for name in ("storm", "outage", "pools", "neighbour", "stores", "guards"))


def test_help_names_the_options_of_a_benchmark() -> None:
    done = command("storm", "--help")
    assert done.returncode == 0
    assert "--videos" in done.stdout


def test_a_report_is_ok_only_when_something_was_promised_and_all_of_it_kept() -> None:
    report = Report("x", {})
    report.tell("figure", 1)
    assert not report.ok
    report.check("kept", 0, "0", ok=True)
    assert report.ok
    report.problems.append("a video is stuck")
    assert not report.ok


def test_the_mix_of_the_storm_hits_its_share_of_calls_each_kind_as_often() -> None:
    told: list[dict[str, Any]] = []

    class Pot:
        def fault(self, route: str, **fault: Any) -> None:
            told.append({"route": route, **fault})

    brew(Pot(), 0.3)  # type: ignore[arg-type]
    through, hits = 1.0, []
    for fault in told:
        hits.append(through * fault["probability"])
        through -= hits[-1]
    assert hits == pytest.approx([0.3 / len(MIX)] * len(MIX))
    assert 1 - through == pytest.approx(0.3)


def test_calls_are_counted_in_every_window_and_not_in_fixed_ones() -> None:
    assert most_within([0.9, 0.95, 1.0, 1.05, 2.0], 1.0) == 4
    assert most_within([0.0, 1.0, 2.0], 1.0) == 1


def test_a_call_that_was_served_before_an_earlier_one_has_overtaken_it() -> None:
    assert out_of_order([1, 2, 3]) == 0
    assert out_of_order([3, 1, 2]) == 1

"""`phantoms pools` and `phantoms breakers` against a real Redis."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, RedisLimits
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.limits import limits_of

SECRET = "5ecr3tW0rd"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str) -> None:
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_REDIS_URL", redis_url)


def phantoms(*arguments: str, width: int = 120, **environment: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(width), **environment})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def pools(*arguments: str) -> dict[str, dict[str, Any]]:
    return {view["pool"]: view for view in json.loads(phantoms("pools", *arguments, "--json").stdout)["pools"]}


def meanwhile(work: Callable[[RedisLimits], Awaitable[None]]) -> None:
    """What a process of the pipeline does with the limits."""

    async def run() -> None:
        async with limits_of(Settings(), SystemClock()) as limits:
            await work(limits)

    asyncio.run(run())


def test_unused_pools_are_shown_with_their_limits() -> None:
    found = pools()
    assert found["publish_youtube"] | {"used": 0} == {
        "pool": "publish_youtube",
        "in_use": 0,
        "slots": 16,
        "waiting": 0,
        "rates": [],
        "quota": 100,
        "quota_left": 100,
        "factor": 1.0,
        "paused_seconds": 0.0,
        "used": 0,
    }
    assert found["publish_tiktok:*"]["rates"][0] == {"calls": 6, "seconds": 60.0, "used": 0}
    assert not any(view["used"] for view in found.values())


def test_calls_in_flight_waiters_rates_and_quota_are_seen_while_they_last() -> None:
    publish = CallScope("youtube", account="main", pool="publish_youtube")
    init = CallScope("tiktok", account="main", pool="publish_tiktok")
    seen: dict[str, dict[str, Any]] = {}

    async def work(limits: RedisLimits) -> None:
        permits = [await limits.admit(publish, max_wait=5, hold_seconds=60) for _ in range(2)]
        permits += [await limits.admit(init, max_wait=5, hold_seconds=60) for _ in range(2)]
        waiter = asyncio.create_task(limits.admit(publish, max_wait=60, hold_seconds=60))
        while not seen or not seen["publish_youtube:main"]["waiting"]:
            seen.update(await asyncio.to_thread(pools))
        for permit in permits:
            await limits.settle(permit, CallOutcome.ANSWERED)
        await limits.settle(await waiter, CallOutcome.ANSWERED)

    meanwhile(work)
    app_wide, account, tiktok = seen["publish_youtube"], seen["publish_youtube:main"], seen["publish_tiktok:main"]
    assert (app_wide["in_use"], app_wide["slots"], app_wide["quota_left"], app_wide["used"]) == (2, 16, 98, True)
    assert (account["in_use"], account["slots"], account["waiting"]) == (2, 2, 1)
    assert [(rate["used"], rate["calls"]) for rate in tiktok["rates"]] == [(2, 6), (2, 15)]
    assert not {"publish_youtube:*", "publish_tiktok:*"} & set(seen)
    after = pools("publish_youtube")
    assert set(after) == {"publish_youtube", "publish_youtube:main"}
    assert (after["publish_youtube"]["in_use"], after["publish_youtube"]["quota_left"]) == (0, 97)


def test_calls_older_than_the_window_of_a_rate_are_not_counted(redis_url: str) -> None:
    async def work(limits: RedisLimits) -> None:
        for _ in range(3):
            await limits.settle(
                await limits.admit(CallScope("openai", pool="script"), max_wait=5, hold_seconds=9), CallOutcome.ANSWERED
            )

    meanwhile(work)
    with redis.Redis.from_url(redis_url) as client:
        seconds, _ = client.time()
        for age in (61, 70, 100, 119):
            client.rpush("phantoms:pool:script#r1", (seconds - age) * 1_000_000)
    assert [rate["used"] for rate in pools("script")["script"]["rates"]] == [3]


def test_what_a_429_taught_is_shown_to_people() -> None:
    scope = CallScope("openai", pool="script")

    async def work(limits: RedisLimits) -> None:
        await limits.settle(await limits.admit(scope, max_wait=5, hold_seconds=9), CallOutcome.ANSWERED)
        await limits.throttled(scope, 40.0)

    meanwhile(work)
    view = pools("script")["script"]
    assert 0.7 < view["factor"] < 0.8
    assert 30 < view["paused_seconds"] <= 40
    shown = phantoms("pools", "script").stdout
    assert "75%, paused" in shown
    assert "1/500 a minute" in shown
    assert "0/64" in shown


def test_a_pool_that_is_not_there_is_said() -> None:
    result = phantoms("pools", "nonsense", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no pool 'nonsense'; `phantoms pools` lists them" in result.stderr


def test_no_breaker_before_the_first_call() -> None:
    assert phantoms("breakers").stdout == "no calls yet, so there are no breakers to show\n"
    assert json.loads(phantoms("breakers", "--json").stdout) == {"breakers": []}


def test_a_breaker_opened_by_hand_stops_calls_until_it_is_reset_and_remembers_why() -> None:
    tripped = phantoms("breakers", "trip", "youtube", "--for", "600", "--why", "they [red]said so")
    assert (tripped.exit_code, tripped.stdout) == (0, "youtube is open until a probe in 600 s\n")
    (state,) = json.loads(phantoms("breakers", "--json").stdout)["breakers"]
    assert (state["name"], state["state"], state["manual"]) == ("youtube", "open", True)
    assert "open manually" in phantoms("breakers").stdout

    async def refused(limits: RedisLimits) -> None:
        with pytest.raises(NotYet, match="the breaker of youtube is open"):
            await limits.admit(CallScope("youtube", pool="youtube_api"), max_wait=1, hold_seconds=1)

    async def admitted(limits: RedisLimits) -> None:
        await limits.settle(
            await limits.admit(CallScope("youtube", pool="youtube_api"), max_wait=1, hold_seconds=1), CallOutcome.ANSWERED
        )

    meanwhile(refused)
    assert phantoms("breakers", "reset", "youtube", "--why", "it is back").stdout == "youtube is closed\n"
    meanwhile(admitted)
    shown = json.loads(phantoms("breakers", "history", "youtube", "--json").stdout)["history"]
    assert [(c["old"], c["new"], c["why"]) for c in shown] == [
        ("open", "closed", "it is back"),
        ("closed", "open", "they [red]said so"),
    ]
    assert "they [red]said so" in phantoms("breakers", "history", "youtube").stdout


def test_without_a_time_a_breaker_stays_open_until_it_is_reset() -> None:
    assert phantoms("breakers", "trip", "shotstack_files", "--why", "x").stdout == "shotstack_files is open until it is reset\n"
    assert "open until it is reset" in phantoms("breakers").stdout


@pytest.mark.parametrize("command", [["trip", "--why", "x"], ["reset", "--why", "x"], ["history"]])
@pytest.mark.parametrize("name", ["yuotube", "yuotube:main", "youtube:", ""])
def test_a_mistyped_breaker_is_refused_and_not_made(command: list[str], name: str) -> None:
    result = phantoms("breakers", command[0], name, *command[1:])
    assert result.exit_code == 2
    assert f"no breaker '{name}'; they are bluesky," in result.stderr
    assert "instagram, instagram_metrics, media," in result.stderr
    assert json.loads(phantoms("breakers", "--json").stdout) == {"breakers": []}


@pytest.mark.parametrize("arguments", [["--for", "0", "--why", "x"], ["--for", "nan", "--why", "x"], ["--why", " "], []])
def test_a_trip_needs_a_reason_and_a_time_that_makes_sense(arguments: list[str]) -> None:
    assert phantoms("breakers", "trip", "youtube", *arguments).exit_code == 2
    assert json.loads(phantoms("breakers", "--json").stdout) == {"breakers": []}


@pytest.mark.parametrize(
    "command", [["pools"], ["breakers"], ["breakers", "history", "youtube"], ["breakers", "reset", "youtube", "--why", "x"]]
)
def test_a_redis_that_does_not_answer_is_a_message_and_an_exit_code(command: list[str]) -> None:
    result = phantoms(*command, PHANTOMS_REDIS_URL=f"redis://u:{SECRET}@127.0.0.1:1/0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: Redis does not answer")
    assert "is `phantoms up` running?" in result.stderr
    assert SECRET not in result.output


@pytest.mark.parametrize(
    "url", [f"redis://u:p@{SECRET}/0", f"redis://u:p/{SECRET}@127.0.0.1:1/0", f"redis://u:{SECRET}@h:port/0", f"u:{SECRET}@h"]
)
def test_a_mistyped_redis_url_never_shows_what_may_be_half_a_password(url: str) -> None:
    for command in (["pools"], ["breakers"]):
        result = phantoms(*command, PHANTOMS_REDIS_URL=url)
        assert result.exit_code != 0
        assert SECRET.lower() not in result.output.replace("\n", "").lower()


def test_without_any_redis_the_message_says_how_to_get_one() -> None:
    result = phantoms("pools", PHANTOMS_REDIS_URL="")
    assert result.exit_code == 2
    assert "start `phantoms up`, or set PHANTOMS_REDIS_URL" in result.stderr


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_tables_fit_the_terminal(width: int) -> None:
    phantoms("breakers", "trip", "youtube:a-long-account-name", "--why", "x")
    for command in (["pools"], ["breakers"], ["breakers", "history", "youtube:a-long-account-name"]):
        lines = [line for line in phantoms(*command, width=width).stdout.splitlines() if not line.startswith("A name")]
        assert lines
        assert all(len(line) <= width for line in lines)


def test_the_help_of_breakers_teaches_with_examples() -> None:
    shown = phantoms("breakers", "--help").stdout
    assert "phantoms breakers trip youtube --for 600" in shown
    assert "history" in phantoms("breakers", "history", "--help").stdout

"""The configured model is checked against the server's list, at the start and by `phantoms doctor`, over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from datetime import date
from pathlib import Path

import openai
import pytest

from phantoms_dagster.cli.doctor import examine as examine_all
from phantoms_dagster.execution import worker
from phantoms_dagster.providers.openai.models import OfferedModel, check_model, judge_model
from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits
from phantoms_dagster.resilience.transport import build_client
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.sandbox.openai.models import MODELS
from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster.wiring.clients import deadlines_of
from phantoms_dagster.wiring.models import model_warning
from phantoms_dagster_tests.contract.test_openai import BRIEF, CHANNEL, KEY, Bench, FakeAttempt, bench, writer

__all__ = ["bench"]

TODAY = date(2026, 11, 26)
OPENAI = "https://api.openai.com/v1"
OFFERED = [OfferedModel("gpt-6-luna"), OfferedModel("gpt-5-mini", date(2026, 12, 11)), OfferedModel("gpt-4", date(2026, 10, 23))]


def test_the_default_model_exists_lives_on_and_is_in_the_vendors_list() -> None:
    """gpt-5.1-mini was never a model: the SDK keeps the name and says so."""
    default = leaves(Settings)["openai_model"].field.default
    listed = Path(openai.__file__).with_name("types").joinpath("shared", "chat_model.py").read_text(encoding="utf-8")
    names, deprecated = listed.split("Deprecated values:")
    assert f'"{default}"' in names
    assert f'"{default}"' not in deprecated
    assert MODELS[default].shutdown is None


@pytest.mark.parametrize(
    ("wanted", "verdict", "said"),
    [
        ("gpt-6-luna", "ok", "gpt-6-luna"),
        ("gpt-5.1-mini", "wrong", "no model gpt-5.1-mini"),
        ("gpt-5-mini", "note", "is shut down on 2026-12-11, in 15 days"),
        ("gpt-4", "wrong", "was shut down on 2026-10-23"),
    ],
)
def test_a_model_is_judged_by_the_servers_list_and_its_day(wanted: str, verdict: str, said: str) -> None:
    finding = judge_model(OFFERED, wanted, today=TODAY, base_url=OPENAI)
    assert finding.verdict == verdict
    assert said in finding.found
    assert (finding.fix == "") is (verdict == "ok")
    assert finding.fix in ("", "set PHANTOMS_OPENAI_MODEL to one of: gpt-6-luna")  # never one that goes as well


def test_servers_of_ones_own_are_judged_by_their_own_rules() -> None:
    local = "http://127.0.0.1:8080/v1"
    assert judge_model([OfferedModel("qwen.gguf")], "gpt-6-luna", today=TODAY, base_url=local).verdict == "note"
    assert judge_model([OfferedModel("llama3:latest"), OfferedModel("b")], "llama3", today=TODAY, base_url=local).verdict == "ok"
    assert judge_model([OfferedModel("a"), OfferedModel("b")], "c", today=TODAY, base_url=local).verdict == "wrong"
    assert judge_model([], "c", today=TODAY, base_url=local).verdict == "note"


async def test_the_sandbox_and_the_check_agree(bench: Bench) -> None:
    async def verdict(model: str) -> str:
        found = await check_model(bench.client, base_url=bench.base_url, api_key=KEY, model=model, today=TODAY, sandbox=True)
        return found.verdict

    assert await verdict("gpt-6-luna") == "ok"
    assert await verdict("gpt-5.1-mini") == "wrong"
    bench.sandbox.advance(60 * 86_400)
    assert await verdict("gpt-5-mini") == "wrong"


async def test_a_wrong_key_and_a_server_that_is_away_are_different_errors(bench: Bench) -> None:
    async def found(base_url: str) -> tuple[str, str]:
        finding = await check_model(bench.client, base_url=base_url, api_key="sk-nobody-0123456789", model="x", today=TODAY)
        assert "nobody" not in finding.found
        return finding.verdict, finding.fix

    assert await found(bench.base_url) == ("wrong", "check PHANTOMS_OPENAI_API_KEY")
    verdict, fix = await found("http://127.0.0.1:9/v1")
    assert verdict == "note"
    assert "PHANTOMS_OPENAI_BASE_URL" in fix


@pytest.fixture
def real(bench: Bench, tmp_path: Path) -> Settings:
    """Settings with a key. The sandbox plays the real service, and its loop runs in this thread."""
    openai = {"api_key": KEY, "base_url": bench.base_url, "model": "gpt-5.1-mini"}
    return Settings(paths={"home": tmp_path}, providers={"openai": openai})


async def test_doctor_says_which_models_there_are(real: Settings) -> None:
    findings = await asyncio.to_thread(lambda: {finding.check: finding for finding in examine_all(real)})
    assert findings["model"].verdict == "wrong"
    assert "gpt-5.1-mini" in findings["model"].found
    assert "gpt-6-luna" in findings["model"].fix


async def test_workers_warn_once_when_they_start_and_the_sandbox_is_nothing_to_warn_of(
    real: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await asyncio.to_thread(worker._say_what_is_wrong, real)
    [record] = caplog.records
    assert "set PHANTOMS_OPENAI_MODEL" in record.getMessage()
    assert model_warning(Settings(paths={"home": real.paths.home})) is None


def test_only_the_models_silence_is_bounded_by_its_own_setting() -> None:
    settings = Settings(providers={"openai": {"seconds": 900}})
    model = deadlines_of(settings, "openai")
    assert (model.read, model.total) == (900, 900)
    others = deadlines_of(settings, "tiktok")
    assert (others.read, others.total) == (60, 600)


async def test_a_model_that_answers_after_longer_than_other_services_may_be_silent_is_waited_for(bench: Bench) -> None:
    """Every slow model was cut at 60 s. The bounds are divided by 100 here: silence 0.6 s, the model's answer after 1.5 s."""
    bench.sandbox.faults.append(Fault("openai.chat", kind="latency", seconds=1.5))
    real = deadlines_of(Settings(), "openai")
    scaled = dataclasses.replace(real, read=real.read / 100, total=real.total / 100)
    async with build_client(limits=UnguardedLimits(), scope=CallScope("openai"), deadlines=scaled) as client:
        await writer(client, base_url=bench.base_url).write(BRIEF, CHANNEL, FakeAttempt())
    assert bench.sandbox.calls == {"openai.chat": 1}
    assert len(bench.billed()) == 1

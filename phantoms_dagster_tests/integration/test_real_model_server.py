"""The script stage against a real llama.cpp server: the runner, the real table, the guarded client, and a proxy that counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.domain.work import Result
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.production.scripting import WriteScript
from phantoms_dagster.providers import openai_models
from phantoms_dagster.providers.openai_scripts import OpenAIScriptWriter
from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits
from phantoms_dagster.resilience.transport import Deadlines, build_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.limits import deadlines_of
from phantoms_dagster_tests.integration.stage_world import CHANNEL, PERSON, World, open_world
from phantoms_dagster_tests.model_server import model_server

SHORT = CHANNEL.model_copy(update={"target_seconds": 15})
# A machine with other work to do takes minutes for what takes a free one ten seconds.
pytestmark = pytest.mark.timeout(900)

SCRIPT_STAGE = stage("script")
# Longer than any other service may be silent.
SILENCE_SECONDS = 61.0
TOKENS = 24


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        opened.catalogue.put_channels([SHORT])
        yield opened


class Counted:
    """A proxy before the model server: what was asked, and what came of it. `url` is where it is."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []


@asynccontextmanager
async def counted(target: str, *, silence: float = 0.0) -> AsyncIterator[Counted]:
    """`silence`: seconds before the first answer is passed on, at least; a thread of a slower machine would need them.

    Each answer is cut off after a few tokens: no script fits into them, and the machine has other work to do.
    """
    seen = Counted()
    async with httpx.AsyncClient(timeout=600, trust_env=False) as onward:

        async def pass_on(request: web.Request) -> web.Response:
            body = await request.json()
            seen.asked.append(body)
            patience = asyncio.create_task(asyncio.sleep(silence if len(seen.asked) == 1 else 0))
            answer = await onward.post(f"{target}/chat/completions", json={**body, "max_tokens": TOKENS})
            seen.answers.append(answer.json())
            await patience
            return web.Response(status=answer.status_code, body=answer.content, content_type="application/json")

        app = web.Application()
        app.router.add_post("/v1/chat/completions", pass_on)
        async with TestServer(app) as server:
            seen.url = str(server.make_url("/v1"))
            yield seen


async def script_stage(world: World, proxy: Counted, deadlines: Deadlines) -> tuple[str, Result]:
    """One video through the stage; its key and its result."""
    [key] = world.add(title="Tides", facts=("The moon pulls the sea.",))
    async with build_client(limits=UnguardedLimits(), scope=CallScope("openai"), deadlines=deadlines) as client:
        writer = OpenAIScriptWriter(
            http_client=client,
            api_key="any",
            base_url=proxy.url,
            model="smollm2",
            clock=SystemClock(),
            input_usd_per_million=1.0,
            output_usd_per_million=1.0,
        )
        runner = StageRunner(
            store=world.store(),
            use_cases={"script": WriteScript(writer)},
            clock=SystemClock(),
            policy=RetryPolicy(backoff_seconds=0.01, backoff_max_seconds=0.01),
            random=lambda: 0.5,
            new_owner=lambda: "runner",
            in_flight=1,
            heartbeat_seconds=20,
        )
        [result] = await runner.run(SCRIPT_STAGE, [key], PERSON)
    return key, result


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """It has one thread."""
    with model_server(context=1_700) as url:
        yield url


async def test_a_model_that_is_silent_for_more_than_a_minute_is_neither_cut_off_nor_asked_twice_for_the_same(
    server: str, world: World
) -> None:
    """Every call was cut after 60 s of silence, called "may have been billed", and made again: six of six videos died of it."""
    async with counted(server, silence=SILENCE_SECONDS) as proxy:
        key, result = await script_stage(world, proxy, deadlines_of(Settings(), "openai"))

    assert result.ending in ("done", "failed")  # whether so small a model can do it is not ours to say
    [attempt] = world.attempts(key, "script")
    assert len(proxy.asked) == len(proxy.answers) <= 2
    prompts = [json.dumps(asked["messages"]) for asked in proxy.asked]
    assert len(set(prompts)) == len(prompts)
    assert attempt["cost"] == 0
    assert all(asked["max_tokens"] <= 16_000 and "max_completion_tokens" not in asked for asked in proxy.asked)
    assert all("timings" in answer for answer in proxy.answers)  # it is the real one
    if result.ending == "done":
        assert result.output is not None
    else:
        assert result.error_class == "permanent"
        assert "told what was wrong" in result.message


async def test_a_model_that_cannot_answer_by_the_schema_ends_clearly_after_two_calls(server: str, world: World) -> None:
    async with counted(server) as proxy:
        key, result = await script_stage(world, proxy, deadlines_of(Settings(), "openai"))

    assert result.ending == "failed"
    assert "cut off at the token limit" in result.message
    assert "told what was wrong" in result.message
    first, second = proxy.asked
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert "cut off" in second["messages"][-1]["content"]
    assert [answer["choices"][0]["finish_reason"] for answer in proxy.answers] == ["length", "length"]
    [letter] = world.letters(key)
    assert letter["error_class"] == "permanent"
    [attempt] = world.attempts(key, "script")
    assert attempt["state"] == "failed"


async def test_doctor_reads_the_real_servers_list_of_models(server: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        today = datetime.now(UTC).date()
        found = await openai_models.examine(client, base_url=server, api_key="any", model="gpt-6-luna", today=today)
    assert found.verdict == "note"
    assert ".gguf" in found.fix

"""The script stage against a real llama.cpp server: the runner, the real table, the guarded client, and a proxy that counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.claims import Result
from phantoms_dagster.domain.models import ScriptOutput
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.production.stages.script import WriteScript
from phantoms_dagster.providers.openai import models as openai_models
from phantoms_dagster.providers.openai.prompt import SCRIPT_SCHEMA
from phantoms_dagster.providers.openai.scripts import OpenAIScriptWriter
from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits
from phantoms_dagster.resilience.transport import Deadlines, build_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clients import deadlines_of
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster_tests.integration.stage_world import CHANNEL, PERSON, World, open_world
from phantoms_dagster_tests.model_server import model_server

SHORT = CHANNEL.model_copy(update={"target_seconds": 15})
# A machine with other work to do takes minutes for what takes a free one ten seconds.
pytestmark = pytest.mark.timeout(900)

SCRIPT_STAGE = stage("script")
# Longer than any other service may be silent.
SILENCE_SECONDS = 61.0
TOKENS = 24
INPUT_USD, OUTPUT_USD = Decimal(3), Decimal(7)  # per million tokens


def words(least: int, most: int) -> dict[str, Any]:
    """The schema of a sentence with so many words."""
    return {"type": "string", "pattern": f"^[A-Z][a-z]{{0,9}}( [a-z]{{1,10}}){{{least - 1},{most - 1}}}\\.$"}


# Each text that this allows is allowed by our own schema too. It keeps a model of this size to a length that a channel of 15
# seconds accepts, whatever it writes: 23 to 38 spoken words where 36 are asked for.
SMALL_SCRIPT: dict[str, Any] = {
    **SCRIPT_SCHEMA,
    "properties": {
        "hook": words(5, 8),
        "scenes": {
            "type": "array",
            "minItems": 3,
            "maxItems": 3,
            "items": {
                **SCRIPT_SCHEMA["properties"]["scenes"]["items"],
                "properties": {"narration": words(6, 10), "on_screen_text": words(2, 3)},
            },
        },
        "title": words(2, 5),
        "caption": words(3, 8),
        "hashtags": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "pattern": "^#[a-z]{3,10}$"}},
    },
}
CUT_OFF = {"max_tokens": TOKENS}
WHOLE = {
    "temperature": 0,
    "seed": 7,
    "response_format": {"type": "json_schema", "json_schema": {"name": "script", "strict": True, "schema": SMALL_SCRIPT}},
}


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
async def counted(target: str, *, silence: float = 0.0, changes: Mapping[str, Any] = CUT_OFF) -> AsyncIterator[Counted]:
    """`silence`: seconds before the first answer is passed on, at least; a thread of a slower machine would need them.

    `changes` to what is asked. By default each answer is cut off after a few tokens: no script fits into them, and the machine
    has other work to do.
    """
    seen = Counted()
    async with httpx.AsyncClient(timeout=600, trust_env=False) as onward:

        async def pass_on(request: web.Request) -> web.Response:
            body = await request.json()
            seen.asked.append(body)
            max_wait = asyncio.create_task(asyncio.sleep(silence if len(seen.asked) == 1 else 0))
            answer = await onward.post(f"{target}/chat/completions", json={**body, **changes})
            seen.answers.append(answer.json())
            await max_wait
            return web.Response(status=answer.status_code, body=answer.content, content_type="application/json")

        app = web.Application()
        app.router.add_post("/v1/chat/completions", pass_on)
        async with TestServer(app) as server:
            seen.url = str(server.make_url("/v1"))
            yield seen


class Billed(httpx.AsyncBaseTransport):
    """Leads the address of a server that bills to the proxy: one on this machine would be free, and its calls booked at nothing."""

    URL = "http://models.example.com/v1"

    def __init__(self, proxy: Counted) -> None:
        self._to = httpx.URL(proxy.url)
        self._wire = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=self._to.host, port=self._to.port)
        return await self._wire.handle_async_request(request)

    async def aclose(self) -> None:
        await self._wire.aclose()


async def script_stage(
    world: World,
    proxy: Counted,
    deadlines: Deadlines,
    *,
    billed: bool = False,
    facts: tuple[str, ...] = ("The moon pulls the sea.",),
) -> tuple[str, Result]:
    """One video through the stage; its key and its result."""
    [key] = world.add(title="Tides", facts=facts)
    inner = Billed(proxy) if billed else None
    async with build_client(limits=UnguardedLimits(), scope=CallScope("openai"), deadlines=deadlines, inner=inner) as client:
        writer = OpenAIScriptWriter(
            http_client=client,
            api_key=lambda: "any",
            base_url=Billed.URL if billed else proxy.url,
            model="smollm2",
            clock=SystemClock(),
            input_usd_per_million=float(INPUT_USD),
            output_usd_per_million=float(OUTPUT_USD),
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

    assert result.outcome in ("done", "failed")  # whether so small a model can do it is not ours to say
    [attempt] = world.attempts(key, "script")
    assert len(proxy.asked) == len(proxy.answers) <= 2
    prompts = [json.dumps(asked["messages"]) for asked in proxy.asked]
    assert len(set(prompts)) == len(prompts)
    assert attempt["cost"] == 0
    assert all(asked["max_tokens"] <= 16_000 and "max_completion_tokens" not in asked for asked in proxy.asked)
    assert all("timings" in answer for answer in proxy.answers)  # it is the real one
    if result.outcome == "done":
        assert result.output is not None
    else:
        assert result.error_class == "permanent"
        assert "second try" in result.message


async def test_a_script_that_a_model_writes_whole_is_kept_after_one_call_and_paid_for_once_by_what_the_server_counted(
    server: str, world: World
) -> None:
    async with counted(server, changes=WHOLE) as proxy:
        key, result = await script_stage(world, proxy, deadlines_of(Settings(), "openai"), billed=True)

    [asked], [answer] = proxy.asked, proxy.answers
    assert asked["response_format"]["json_schema"]["schema"] == SCRIPT_SCHEMA
    assert "timings" in answer  # it is the real one
    assert (result.outcome, result.message) == ("done", "")
    row = world.row(key, "script")
    assert (row["state"], row["error_class"]) == ("done", None)

    [choice] = answer["choices"]
    wrote = json.loads(choice["message"]["content"])
    kept = ScriptOutput.model_validate(row["output"])
    assert kept.script.hook == wrote["hook"]
    assert [(scene.narration, scene.on_screen_text) for scene in kept.script.scenes] == [
        (scene["narration"], scene["on_screen_text"]) for scene in wrote["scenes"]
    ]
    assert (kept.script.title, kept.script.caption) == (wrote["title"], wrote["caption"])

    used = answer["usage"]
    assert used["prompt_tokens"] > 100
    assert used["completion_tokens"] > 40
    assert (kept.input_tokens, kept.output_tokens) == (used["prompt_tokens"], used["completion_tokens"])
    cost = (used["prompt_tokens"] * INPUT_USD + used["completion_tokens"] * OUTPUT_USD) / 1_000_000
    [attempt] = world.attempts(key, "script")
    assert (attempt["state"], attempt["cost"], attempt["provider_ref"]) == ("done", cost, answer["id"])
    assert row["cost"] == cost
    assert world.letters(key) == []


async def test_a_prompt_that_is_too_long_for_the_model_ends_at_once_and_says_what_to_do(server: str, world: World) -> None:
    harbours = " and ".join(f"{number * 7919} mm up the wall of harbour {number * 104729}" for number in range(5))
    facts = tuple(f"On day {day} the moon pulled the sea {harbours}." for day in range(30))
    async with counted(server) as proxy:
        key, result = await script_stage(world, proxy, deadlines_of(Settings(), "openai"), billed=True, facts=facts)

    [answer] = proxy.answers  # no second try, and no shorter answer is asked for: that would not fit either
    assert answer["error"]["n_prompt_tokens"] > answer["error"]["n_ctx"]
    assert (result.outcome, result.error_class) == ("failed", "permanent")
    [letter] = world.letters(key)
    assert letter["error_class"] == "permanent"
    for told in ("exceeds the available context size", "use a model or a server with a larger context", "give fewer facts"):
        assert told in letter["message"]
    [attempt] = world.attempts(key, "script")
    assert (attempt["state"], attempt["cost"]) == ("failed", 0)
    assert world.row(key, "script")["cost"] == 0


async def test_a_model_that_cannot_answer_by_the_schema_ends_clearly_after_two_calls(server: str, world: World) -> None:
    async with counted(server) as proxy:
        key, result = await script_stage(world, proxy, deadlines_of(Settings(), "openai"))

    assert result.outcome == "failed"
    assert "cut off at the token limit" in result.message
    assert "second try" in result.message
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
        found = await openai_models.check_model(client, base_url=server, api_key="any", model="gpt-6-luna", today=today)
    assert found.verdict == "note"
    assert ".gguf" in found.fix

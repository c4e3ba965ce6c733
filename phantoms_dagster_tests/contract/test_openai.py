"""The script writer against the sandbox over real HTTP: what is sent, what is booked, what is made of each answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import LOOK_UP_FAILED, InvalidInput, NotYet, Permanent, Rejected, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.openai.answer import FaultyAnswer, cost, normalised, parse_answer, parse_script, usage
from phantoms_dagster.providers.openai.prompt import SCRIPT_SCHEMA
from phantoms_dagster.providers.openai.scripts import DOUBTS_KEPT, READS_KEPT, OpenAIScriptWriter
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.openai import routes as stand_in
from phantoms_dagster.sandbox.openai.schema import check_strict

KEY = "sandbox-ocean-0123456789"
BRIEF = Brief(
    title="Why octopuses have three hearts",
    angle="The strangest plumbing in the sea",
    facts=("Two hearts pump blood through the gills", "The third heart stops while the octopus swims"),
    channel="ocean",
    platforms=(Platform("youtube"),),
)
CHANNEL = Channel(
    name="ocean",
    title="Ocean Facts",
    brand_voice="Curious and warm.",
    accounts={Platform("youtube"): "ocean"},
    hashtags=("#Ocean",),
    banned_words=("guaranteed",),
)


class FakeClock:
    """Time that passes only when code sleeps."""

    def __init__(self) -> None:
        self.slept = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds


class FakeAttempt:
    """An attempt that remembers what it was given; `fails` is raised by `received`."""

    def __init__(
        self,
        marker: str = "a-1",
        *,
        stored: JsonObject | None = None,
        fails: Exception | None = None,
        in_doubt: tuple[str, ...] = (),
        reads: int = 0,
    ) -> None:
        self.id = marker
        self.reads = reads
        self.stored_response = stored
        self.in_doubt = in_doubt
        self.fails = fails
        self.receipts: list[tuple[JsonObject, str | None, Decimal | None]] = []

    async def received(self, response: JsonObject, *, provider_ref: str | None = None, cost: Decimal | None = None) -> None:
        if self.fails is not None:
            raise self.fails
        self.receipts.append((response, provider_ref, cost))


class Bench:
    """A running sandbox, a client and a writer."""

    def __init__(self, sandbox: Sandbox, base_url: str, client: httpx.AsyncClient) -> None:
        self.sandbox, self.base_url, self.client = sandbox, base_url, client
        self.requests: list[httpx.Request] = []
        client.event_hooks = {"request": [self._saw]}

    async def _saw(self, request: httpx.Request) -> None:
        self.requests.append(request)

    def writer(self, **changed: Any) -> OpenAIScriptWriter:
        return writer(self.client, base_url=self.base_url, **changed)

    def billed(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "script"]

    def posted(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests if request.method == "POST"]


def writer(client: httpx.AsyncClient, **changed: Any) -> OpenAIScriptWriter:
    arguments: dict[str, Any] = {
        "http_client": client,
        "api_key": lambda: KEY,
        "base_url": "http://127.0.0.1/openai/v1",
        "model": "gpt-6-luna",
        "clock": FakeClock(),
        "input_usd_per_million": 0.25,
        "output_usd_per_million": 2.0,
        "sandbox": True,  # the sandbox follows OpenAI's rules; on 127.0.0.1 anything else would be a compatible server
    }
    return OpenAIScriptWriter(**{**arguments, **changed})


def answering(handler: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handler))


def completion(content: str | None = None, **choice: Any) -> JsonObject:
    message = {"role": "assistant", "content": content, "refusal": choice.pop("refusal", None)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-6-luna-2026-01-01",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message, **choice}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
    }


def raw_script(**changed: Any) -> dict[str, Any]:
    scenes = [{"narration": "An octopus has three hearts and blue blood. " * 2, "on_screen_text": "Three hearts"}] * 4
    script = {"hook": "Three hearts beat in one body.", "scenes": scenes, "title": "Three hearts", "caption": "Blue blood."}
    return {**script, "hashtags": ["#hearts"], **changed}


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    sandbox = Sandbox(seed=1)
    async with (
        TestServer(application(sandbox, [stand_in.routes(sandbox)])) as server,
        httpx.AsyncClient(timeout=5, trust_env=False) as client,
    ):
        yield Bench(sandbox, str(server.make_url("/openai/v1")), client)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with opened() as made:
        yield made


# --- one call -----------------------------------------------------------------------------------------------------------


async def test_a_brief_becomes_a_script_that_is_billed_once_and_carries_the_attempts_marker(bench: Bench) -> None:
    attempt = FakeAttempt("attempt-7")
    written = await bench.writer(sandbox=True).write(BRIEF, CHANNEL, attempt)

    [bill] = bench.billed()
    assert bill | {"id": written.provider_ref, "title": BRIEF.title, "marker": "attempt-7", "model": "gpt-6-luna"} == bill
    assert written.sandbox
    assert written.model == "gpt-6-luna"
    assert "three hearts" in written.script.text.casefold()
    assert all(fact.split()[1] in written.script.text for fact in BRIEF.facts)
    assert "not by a language model" in written.script.caption
    assert written.script.hashtags[0] == "#Ocean"
    assert written.cost == (written.input_tokens * Decimal("0.25") + written.output_tokens * 2) / 1_000_000 > 0


async def test_the_raw_answer_is_committed_with_its_reference_and_cost(bench: Bench) -> None:
    attempt = FakeAttempt()
    written = await bench.writer().write(BRIEF, CHANNEL, attempt)
    [(body, reference, cost)] = attempt.receipts
    assert body["id"] == reference == written.provider_ref
    assert cost == written.cost
    assert body["usage"]["prompt_tokens"] == written.input_tokens  # type: ignore[index, call-overload]


async def test_a_stored_answer_is_used_instead_of_asking_again(bench: Bench) -> None:
    first = FakeAttempt("killed")
    before = await bench.writer().write(BRIEF, CHANNEL, first)
    again = FakeAttempt("resumed", stored=first.receipts[0][0])
    after = await bench.writer().write(BRIEF, CHANNEL, again)
    assert after == replace(before, cost=Decimal(0))
    assert len(bench.billed()) == 1
    assert again.receipts == []


async def test_an_answer_of_the_sandbox_is_not_taken_for_one_of_a_real_model(bench: Bench) -> None:
    first = FakeAttempt("tried-out")
    await bench.writer(sandbox=True).write(BRIEF, CHANNEL, first)
    real = FakeAttempt("real", stored=first.receipts[0][0])
    written = await bench.writer(sandbox=False).write(BRIEF, CHANNEL, real)
    assert not written.sandbox
    assert len(bench.billed()) == 2
    sandboxed = FakeAttempt("tried-again", stored=real.receipts[0][0])
    assert (await bench.writer(sandbox=True).write(BRIEF, CHANNEL, sandboxed)).sandbox
    assert len(bench.billed()) == 3


async def test_an_answer_without_a_script_is_committed_before_it_is_judged(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = "nonsense"
    attempt = FakeAttempt()
    with pytest.raises(Permanent) as caught:
        await bench.writer().write(BRIEF, CHANNEL, attempt)
    assert caught.value.code == "malformed"
    billed = [bill["id"] for bill in bench.billed()]
    assert [reference for _, reference, _ in attempt.receipts] == [billed[0], billed[0], billed[1]]


async def test_an_error_of_our_own_while_committing_the_answer_comes_out_as_it_is(bench: Bench) -> None:
    failure = NotYet("busy", retry_after=1)
    with pytest.raises(NotYet) as caught:
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt(fails=failure))
    assert caught.value is failure


async def test_the_request_says_everything_that_the_model_must_keep_to(bench: Bench) -> None:
    await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    [sent] = bench.posted()
    system, user = sent["messages"]
    assert all(text in system["content"] for text in ("Ocean Facts", "Curious and warm.", '"guaranteed"', "72 words", "#Ocean"))
    asked = json.loads(user["content"])
    assert (asked["title"], asked["facts"], asked["target_words"]) == (BRIEF.title, list(BRIEF.facts), 72)
    assert sent["store"] is True
    assert sent["metadata"] == {"attempt": "a-1"}
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert not {"temperature", "max_tokens", "stream"} & set(sent)


def test_our_schema_is_inside_the_strict_subset() -> None:
    check_strict(SCRIPT_SCHEMA)


async def test_without_store_no_metadata_is_sent_either(bench: Bench) -> None:
    await bench.writer(store=False).write(BRIEF, CHANNEL, FakeAttempt())
    [sent] = bench.posted()
    assert not {"store", "metadata"} & set(sent)


@pytest.mark.parametrize("seconds", [15, 22, 30, 45, 55, 60])
async def test_a_script_of_the_sandbox_is_taken_whatever_length_the_channel_wants(bench: Bench, seconds: int) -> None:
    channel = CHANNEL.model_copy(update={"target_seconds": seconds})
    written = await bench.writer().write(BRIEF, channel, FakeAttempt())
    spoken_seconds = len(written.script.text.split()) / 2.4
    assert 0.5 * min(seconds, 57) <= spoken_seconds <= min(seconds, 57) + 6
    assert 2 <= len(written.script.scenes) <= 6


# --- a server that does not know our extras -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unknown", "status", "remain"),
    [
        ("store", 400, {"max_completion_tokens"}),
        ("metadata", 422, {"max_completion_tokens"}),
        ("max_completion_tokens", 400, {"store", "metadata", "max_tokens"}),
    ],
)
async def test_a_server_that_refuses_an_extra_is_asked_again_without_it_and_remembered(
    unknown: str, status: int, remain: set[str]
) -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        seen.append(body)
        if unknown in body:
            return httpx.Response(status, json={"detail": [{"loc": ["body", unknown], "msg": "Extra inputs are not permitted"}]})
        return httpx.Response(200, json=completion(json.dumps(raw_script())))

    async with answering(handler) as client:
        writes = writer(client)
        await writes.write(BRIEF, CHANNEL, FakeAttempt())
        await writes.write(BRIEF, CHANNEL, FakeAttempt())
    assert len(seen) == 3
    assert {"store", "metadata", "max_completion_tokens", "max_tokens"} & set(seen[-1]) == remain


async def test_extras_refused_one_by_one_are_left_out_together() -> None:
    calls = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        calls.append(body)
        for name in ("metadata", "max_completion_tokens"):
            if name in body:
                return httpx.Response(400, json={"error": {"message": f"Unrecognized request argument supplied: {name}"}})
        return httpx.Response(200, json=completion(json.dumps(raw_script())))

    async with answering(handler) as client:
        await writer(client).write(BRIEF, CHANNEL, FakeAttempt())
    assert len(calls) == 3


async def test_a_refusal_that_names_no_extra_is_not_asked_again() -> None:
    calls = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(400, json={"error": {"message": "bad schema", "code": "invalid_value"}})

    async with answering(handler) as client:
        with pytest.raises(Permanent, match="bad schema"):
            await writer(client).write(BRIEF, CHANNEL, FakeAttempt())
    assert len(calls) == 1


# --- answers that do not arrive -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["drop_after", "malformed"])
async def test_an_answer_lost_after_it_was_billed_is_read_back_not_paid_for_again(bench: Bench, kind: str) -> None:
    bench.sandbox.faults.append(Fault("openai.chat", kind=kind, times=1))
    attempt = FakeAttempt("lost-1")
    written = await bench.writer().write(BRIEF, CHANNEL, attempt)
    assert [bill["id"] for bill in bench.billed()] == [written.provider_ref]
    assert attempt.receipts[0][1] == written.provider_ref


async def test_an_answer_that_cannot_be_read_back_is_transient_and_may_have_been_billed(bench: Bench) -> None:
    bench.sandbox.faults.append(Fault("openai.chat", kind="drop_after"))
    bench.sandbox.config["openai.indexing_seconds"] = 60
    with pytest.raises(Transient, match="may have been billed"):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert bench.sandbox.calls == {"openai.chat": 1, "openai.list": 3}


@pytest.mark.parametrize("kind", ["drop_before", "malformed", "status"])
async def test_a_lost_answer_that_cannot_be_looked_for_now_is_found_by_the_next_attempt(bench: Bench, kind: str) -> None:
    """In a storm it was paid for twice: the read-back failed too, and the next attempt ordered again."""
    bench.sandbox.faults.append(Fault("openai.chat", kind="drop_after", times=1))
    bench.sandbox.faults.append(Fault("openai.list", kind=kind, status=503, times=2))
    first, second, third = FakeAttempt("a-1"), FakeAttempt("a-2", in_doubt=("a-1",)), FakeAttempt("a-3", in_doubt=("a-1",), reads=2)
    # The second attempt sends nothing that could be billed, so nobody needs to look for an answer to it.
    for attempt, code in ((first, "script_unknown"), (second, LOOK_UP_FAILED)):
        with pytest.raises(Unknown, match="cannot be looked up now") as raised:
            await bench.writer().write(BRIEF, CHANNEL, attempt)
        assert raised.value.code == code
    written = await bench.writer().write(BRIEF, CHANNEL, third)
    assert [entry["marker"] for entry in bench.sandbox.ledger] == ["a-1"]
    assert written.provider_ref == bench.sandbox.ledger[0]["id"]
    assert third.receipts[0][2] == written.cost > 0


async def test_a_doubt_that_cannot_be_settled_is_not_read_back_forever(bench: Bench) -> None:
    bench.sandbox.faults.append(Fault("openai.list", kind="drop_before"))
    doubts = tuple(f"a-{n}" for n in range(DOUBTS_KEPT + 1))
    await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("a-99", in_doubt=doubts))
    assert bench.sandbox.calls == {"openai.chat": 1}
    await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("a-99", in_doubt=("a-1",), reads=READS_KEPT + 1))
    assert bench.sandbox.calls == {"openai.chat": 2}


async def test_an_attempt_that_was_killed_before_its_request_costs_only_a_read(bench: Bench) -> None:
    await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("a-2", in_doubt=("a-1",)))
    assert bench.sandbox.calls == {"openai.list": 1, "openai.chat": 1}


async def test_another_attempts_completion_is_never_taken_for_ours(bench: Bench) -> None:
    await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("theirs"))
    bench.sandbox.faults.append(Fault("openai.chat", kind="drop_before"))
    with pytest.raises(Transient):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("ours"))


async def test_a_server_that_lists_without_filtering_gives_us_no_strangers_completion() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ReadError("reset")
        stranger = completion(json.dumps(raw_script())) | {"metadata": {"attempt": "theirs"}}
        return httpx.Response(200, json={"object": "list", "data": [stranger], "has_more": False})

    attempt = FakeAttempt("ours")
    async with answering(handler) as client:
        with pytest.raises(Transient):
            await writer(client).write(BRIEF, CHANNEL, attempt)
    assert attempt.receipts == []


async def test_without_store_a_lost_answer_is_not_looked_for(bench: Bench) -> None:
    bench.sandbox.faults.append(Fault("openai.chat", kind="drop_after"))
    with pytest.raises(Transient, match="may have been billed"):
        await bench.writer(store=False).write(BRIEF, CHANNEL, FakeAttempt())
    assert bench.sandbox.calls == {"openai.chat": 1}


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("slow"), False),
        (httpx.PoolTimeout("full"), False),
        (httpx.ReadTimeout("slow"), True),
        (httpx.WriteError("reset"), True),
        (httpx.RemoteProtocolError("hung up"), True),
    ],
)
async def test_a_broken_call_is_transient_and_says_whether_money_may_be_gone(error: httpx.HTTPError, billed: bool) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"object": "list", "data": []})
        raise error

    async with answering(handler) as client:
        with pytest.raises(Transient) as caught:
            await writer(client).write(BRIEF, CHANNEL, FakeAttempt())
    assert ("may have been billed" in str(caught.value)) is billed
    assert caught.value.code == type(error).__name__
    assert caught.value.retry_after is None


@pytest.mark.parametrize("wrapped", [False, True])
async def test_an_error_of_our_own_from_the_transport_comes_out_unwrapped(wrapped: bool) -> None:
    ours = NotYet("the breaker of openai is open", retry_after=30)

    def handler(_: httpx.Request) -> httpx.Response:
        if wrapped:
            raise httpx.ConnectError("not sent") from ours
        raise ours

    async with answering(handler) as client:
        with pytest.raises(NotYet) as caught:
            await writer(client).write(BRIEF, CHANNEL, FakeAttempt())
    assert caught.value is ours


async def test_an_error_dressed_as_a_success_is_an_error_and_books_nothing() -> None:
    attempt = FakeAttempt()
    async with answering(lambda _: httpx.Response(200, json={"error": {"message": "upstream failed", "code": 502}})) as client:
        with pytest.raises(Transient, match="upstream failed"):
            await writer(client).write(BRIEF, CHANNEL, attempt)
    assert attempt.receipts == []


# --- answers that are no script -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "error", "code"),
    [
        ("refusal", Rejected, "refusal"),
        ("content_filter", Rejected, "content_filter"),
        ("length", Permanent, "length"),
        ("empty", Permanent, "empty"),
        ("nonsense", Permanent, "malformed"),
    ],
)
async def test_a_refusal_of_the_model_and_an_unusable_answer_are_different_errors(
    bench: Bench, outcome: str, error: type[Exception], code: str
) -> None:
    bench.sandbox.config["openai.outcome"] = outcome
    attempt = FakeAttempt()
    with pytest.raises(error) as caught:
        await bench.writer().write(BRIEF, CHANNEL, attempt)
    assert type(caught.value) is error
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert len(bench.billed()) == (1 if error is Rejected else 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"hook": 7},
        {"hook": ""},
        {"scenes": []},
        {"scenes": [{"narration": "https://only.example/address", "on_screen_text": "x"}]},
        {"scenes": [{"narration": "w " * 400, "on_screen_text": "x"}]},
        {"scenes": "none"},
        {"scenes": [{"narration": "Far too short.", "on_screen_text": "x"}]},
        {"scenes": [{"narration": "on and on " * 18, "on_screen_text": "x"}] * 6},
    ],
)
def test_the_model_hears_about_a_script_that_breaks_a_limit_of_what_is_spoken(changed: dict[str, Any]) -> None:
    with pytest.raises(FaultyAnswer) as caught:
        parse_script(completion(json.dumps(raw_script(**changed))), CHANNEL)
    assert caught.value.feedback in str(caught.value.final)
    assert (type(caught.value.final), caught.value.final.code) == (Permanent, "malformed")


@pytest.mark.parametrize("body", [{}, {"choices": "x"}, {"choices": [{}]}, {"choices": [{"message": {"content": "[1]"}}]}])
def test_an_answer_of_a_strange_shape_has_a_fault(body: JsonObject) -> None:
    with pytest.raises(FaultyAnswer):
        parse_script(body, CHANNEL)


@pytest.mark.parametrize(
    "changed", [{"caption": "GUARANTEED to work."}, {"hashtags": ["#guaranteed"]}, {"hook": "It is **guaranteed**, they say."}]
)
def test_a_banned_word_anywhere_is_rejected_by_name(changed: dict[str, Any]) -> None:
    with pytest.raises(FaultyAnswer, match="guaranteed") as caught:
        parse_script(completion(json.dumps(raw_script(**changed))), CHANNEL)
    assert isinstance(caught.value.final, Rejected)


def test_a_language_without_spaces_is_not_measured_in_words() -> None:
    channel = CHANNEL.model_copy(update={"language": "ja"})
    raw = raw_script(hook="タコの心臓は三つ。", scenes=[{"narration": "血は青い。", "on_screen_text": "青い血"}])
    assert parse_script(completion(json.dumps(raw)), channel).hook == "タコの心臓は三つ。"


def test_a_script_in_a_code_fence_is_read() -> None:
    assert parse_script(completion(f"```json\n{json.dumps(raw_script())}\n```"), CHANNEL).title == "Three hearts"


def test_markup_of_the_answer_is_removed_and_told_with_its_place() -> None:
    scene = {"narration": "In **cold** water, 5*4*3*2*1 = 120 [1]. See https://x.example/a", "on_screen_text": "x.example \u2605"}
    raw = raw_script(caption="Read **more**:\n- [here](https://x.example/b) 2*x and 3*y", hashtags=["#sea", "#\U0001f419"])
    raw["scenes"][0] = scene
    script, removed = parse_answer(completion(json.dumps(raw)), CHANNEL)
    assert script.scenes[0].narration == "In cold water, 5*4*3*2*1 = 120 [1]. See"
    assert script.scenes[0].on_screen_text == "x.example \u2605"
    assert script.caption == "Read more:\n- here (https://x.example/b) 2*x and 3*y"
    assert removed == (
        *("caption: **", "scene 1: **", "scene 1: https://x.example/a"),
        "hashtags: '#\U0001f419' has no word",
    )


@pytest.mark.parametrize("hook", ["\U0001f419\U0001f419", "¿?"])
def test_a_hook_without_a_word_is_asked_for_again_by_its_name(hook: str) -> None:
    with pytest.raises(FaultyAnswer, match=r"hook: .* has no word that can be spoken"):
        parse_script(completion(json.dumps(raw_script(hook=hook))), CHANNEL)


def test_a_number_alone_is_a_hook() -> None:
    assert parse_script(completion(json.dumps(raw_script(hook="1984!"))), CHANNEL).hook == "1984!"


def test_hashtags_are_made_words_each_once_and_the_channels_come_first() -> None:
    assert normalised(["#Ocean", "ocean", "deep sea!", "#", "#\U0001f419", "e\u0301te\u0301", "#हिन्दी"]) == (
        *("#Ocean", "#deepsea", "#été", "#हिन्दी"),
    )
    assert len(normalised(f"tag{i}" for i in range(40))) == 15
    assert parse_script(completion(json.dumps(raw_script())), CHANNEL).hashtags == ("#Ocean", "#hearts")


def test_a_server_that_counts_no_tokens_costs_nothing_and_breaks_nothing() -> None:
    body = completion(json.dumps(raw_script()))
    assert cost(usage(body), input_usd_per_million=0.25, output_usd_per_million=2.0) == Decimal("0.00125")
    strange_counts: list[JsonObject | None] = [None, {}, {"prompt_tokens": None, "completion_tokens": "7"}]
    for strange in strange_counts:
        assert usage({"usage": strange}) == (0, 0)


# --- refusals over the wire ---------------------------------------------------------------------------------------------


async def test_a_rate_limit_is_waited_for_and_an_empty_account_is_not(bench: Bench) -> None:
    limited = json.dumps({"error": {"message": "slow", "type": "requests", "param": None, "code": "rate_limit_exceeded"}})
    broke = json.dumps(
        {"error": {"message": "no money", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}
    )
    bench.sandbox.faults.append(Fault("openai.chat", status=429, body=limited, retry_after=7, times=1))
    bench.sandbox.faults.append(Fault("openai.chat", status=429, body=broke, retry_after=7, times=1))
    with pytest.raises(Throttled) as throttled:
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert throttled.value.retry_after == 7
    with pytest.raises(Permanent, match="insufficient_quota"):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert bench.sandbox.calls == {"openai.chat": 2}
    assert bench.billed() == []


async def test_a_server_error_is_sent_once_and_says_that_it_may_have_been_billed(bench: Bench) -> None:
    bench.sandbox.faults.append(Fault("openai.chat", status=500))
    with pytest.raises(Transient, match="may have been billed"):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert bench.sandbox.calls == {"openai.chat": 1}


async def test_a_wrong_key_is_permanent_and_never_shown(bench: Bench) -> None:
    secret = "sk-proj-AbCdEf0123456789"
    with pytest.raises(Permanent) as caught:
        await bench.writer(api_key=lambda: secret).write(BRIEF, CHANNEL, FakeAttempt())
    assert "invalid_api_key" in str(caught.value)
    shown = str(caught.value) + caught.value.evidence.model_dump_json()
    assert secret not in shown
    assert "sk-p" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("status", [400, 401, 429, 500, 200])
async def test_a_key_that_the_server_repeats_reaches_no_message(status: int) -> None:
    secret = "compatible-key-0123456789"

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"error": {"message": f"bad {request.headers['authorization']}, {secret}"}})

    async with answering(handler) as client:
        with pytest.raises((Permanent, Transient)) as caught:
            await writer(client, api_key=lambda: secret, sandbox=False).write(BRIEF, CHANNEL, FakeAttempt())
    assert secret not in str(caught.value) + caught.value.evidence.model_dump_json()


@pytest.mark.parametrize("key", ["", "  ", "sk-a b", "sk-\u201cquoted\u201d", "sk-a\nb"])
async def test_a_key_that_could_not_stand_in_a_header_is_refused_without_being_shown(key: str) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(InvalidInput) as caught:
            writer(client, api_key=lambda key=key: key)
    assert not key.strip() or key not in str(caught.value)

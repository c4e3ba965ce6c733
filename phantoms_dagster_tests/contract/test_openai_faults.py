"""Faulty answers of models, from the sandbox over HTTP: which are accepted, which are repaired, and which the model hears about."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from phantoms_dagster.domain.errors import NotYet, Permanent, Rejected, Transient, Unknown
from phantoms_dagster.providers.openai.answer import parse_answer, parse_script
from phantoms_dagster.providers.openai.object import object_in
from phantoms_dagster.sandbox.core import Fault as Broken
from phantoms_dagster_tests.contract.test_openai import (
    BRIEF,
    CHANNEL,
    Bench,
    FakeAttempt,
    answering,
    bench,
    completion,
    raw_script,
    writer,
)

__all__ = ["bench"]


# --- taken and repaired, by one paid call -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["prose", "thinking", "links", "long"])
async def test_a_script_that_can_be_taken_or_repaired_costs_one_call(bench: Bench, outcome: str) -> None:
    bench.sandbox.config["openai.outcome"] = outcome
    written = await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert len(bench.billed()) == 1
    assert "three hearts" in written.script.text.casefold()
    assert all("http" not in scene.on_screen_text for scene in written.script.scenes)


@pytest.mark.parametrize(
    "content",
    [
        '{"scenes": 1}',
        'Here: {"scenes": 1} and that is {it}.',
        '<think>{"scenes": 2} or {"hook": 3}?</think>{"scenes": 1}',
        'The template opened the thought. {"scenes": 2}</think>\n```json\n{"scenes": 1}\n```',
        '<think>never ends, but {"scenes": 1}',
        '<think>{"scenes": 1}</think>',
        'A draft {"scenes": 2}, the answer {"scenes": 1}, and an aside {"note": 3}.',
        '{"scenes": 1, "broken": "a\nline"}',
    ],
)
def test_the_object_that_is_there_is_found(content: str) -> None:
    found = object_in(content, key="scenes")
    assert found is not None
    assert found["scenes"] == 1


@pytest.mark.parametrize("content", ["", "no object", "{", "[1]", "{" * 100_000])
def test_a_text_without_an_object_has_none(content: str) -> None:
    assert object_in(content, key="scenes") is None


def test_a_server_that_puts_the_answer_among_the_thoughts_is_read() -> None:
    for name in ("reasoning_content", "reasoning"):
        body = completion(message={"role": "assistant", "content": "", name: json.dumps(raw_script())})
        assert parse_script(body, CHANNEL).title == "Three hearts"


NARRATION = "An octopus has three hearts, and blue blood. "
LONG = (
    "The third heart, the one that keeps the rest of the body going for all of its short life in the cold sea, stops in mid-swim. "
)


@pytest.mark.parametrize(
    ("written", "narration", "shown"),
    [
        ("https://x.example/a", NARRATION * 3, "An octopus has three hearts, and blue blood. " * 2),
        ("", LONG, ""),
        ("The third heart stops beating while", NARRATION * 3, "The third heart stops beating"),
        ("Three hearts and the", NARRATION * 3, "An octopus has three hearts, and blue blood. " * 2),
        ("Three hearts;", NARRATION * 3, "Three hearts"),
        ("What it is made of", NARRATION * 3, "What it is made of"),
        ("word " * 60, LONG, ""),
    ],
)
def test_a_headline_is_a_whole_phrase_of_the_model_or_of_the_narration_or_nothing(written: str, narration: str, shown: str) -> None:
    """The headline was the first five words of a narration, wherever they broke off. Longer texts were cut at any word."""
    scenes = [{"narration": narration, "on_screen_text": written}] * (4 if narration != LONG else 3)
    script, removed = parse_answer(completion(json.dumps(raw_script(scenes=scenes))), CHANNEL)
    assert {scene.on_screen_text for scene in script.scenes} == {shown.strip()}
    assert bool(removed) == (bool(written) and written != shown)


def test_texts_that_are_read_are_cut_at_a_sentence_or_a_word_and_what_is_spoken_is_not() -> None:
    script = parse_script(
        completion(json.dumps(raw_script(title="A title. " * 30, caption="", extra=1, hashtags="#a, b"))), CHANNEL
    )
    assert len(script.title) <= 100
    assert script.title.endswith(".")
    assert script.caption == script.hook
    assert script.hashtags == ("#Ocean", "#a", "#b")
    for written, title in (
        (
            "What happens to " + "the deep and " * 12,
            "What happens to the deep and the deep and the deep and the deep and the deep and the deep…",
        ),
        ("The third heart stops while", "The third heart stops"),
        ("Three hearts —", "Three hearts"),
    ):
        assert parse_script(completion(json.dumps(raw_script(title=written))), CHANNEL).title == title


# --- told once ----------------------------------------------------------------------------------------------------------------


async def test_the_model_hears_about_a_fault_once_and_its_second_answer_is_taken(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = ["nonsense", "script"]
    attempt = FakeAttempt("a-1")
    written = await bench.writer().write(BRIEF, CHANNEL, attempt)
    first, second = bench.posted()
    assert second["messages"][:2] == first["messages"]
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "user"]
    assert "it holds no JSON object" in second["messages"][3]["content"]
    assert [bill["marker"] for bill in bench.billed()] == ["a-1", "a-1-second"]
    assert written.cost == attempt.receipts[-1][2]
    assert attempt.receipts[-1][2] > attempt.receipts[0][2] > 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("outcome", "error", "said"),
    [("nonsense", Permanent, "no JSON object"), ("length", Permanent, "cut off"), ("empty", Permanent, "without a choice")],
)
async def test_a_model_that_makes_its_fault_again_costs_two_calls_and_ends_clearly(
    bench: Bench, outcome: str, error: type[Exception], said: str
) -> None:
    """Five paid calls, then a letter that said nothing of what was wrong: that is what it used to be."""
    bench.sandbox.config["openai.outcome"] = outcome
    with pytest.raises(error, match=said) as caught:
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert "second try" in str(caught.value)
    assert len(bench.billed()) == 2


async def test_the_model_hears_about_a_banned_word_once_and_then_a_person_must_look(bench: Bench) -> None:
    channel = CHANNEL.model_copy(update={"banned_words": ("hearts",)})
    with pytest.raises(Rejected, match="hearts"):
        await bench.writer().write(BRIEF, channel, FakeAttempt())
    assert len(bench.billed()) == 2


async def test_a_refusal_is_not_argued_with(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = "refusal"
    with pytest.raises(Rejected):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert len(bench.billed()) == 1


async def test_an_answer_that_was_cut_off_is_given_more_room_once(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = ["length", "script"]
    await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert [sent["max_completion_tokens"] for sent in bench.posted()] == [8_000, 16_000]


# --- and no crash or wait makes it three --------------------------------------------------------------------------------------


async def test_who_died_while_the_model_was_told_goes_on_with_what_was_paid(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = ["nonsense", "script"]
    first = FakeAttempt("a-1")
    await bench.writer().write(BRIEF, CHANNEL, first)
    before_first, before_second, after = (receipt[0] for receipt in first.receipts)
    assert len(bench.billed()) == 2
    # Killed when its first answer was kept, when the second was asked for, and when that had come.
    for kept, calls in ((before_second, 2), (after, 2), (before_first, 3)):
        resumed = FakeAttempt("a-2", stored=kept)
        written = await bench.writer().write(BRIEF, CHANNEL, resumed)
        assert len(bench.billed()) == calls
        assert "three hearts" in written.script.text.casefold()


async def test_a_second_answer_that_is_kept_but_faulty_is_not_asked_for_a_third_time(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = "nonsense"
    first = FakeAttempt("a-1")
    with pytest.raises(Permanent):
        await bench.writer().write(BRIEF, CHANNEL, first)
    with pytest.raises(Permanent, match="not asked again"):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("a-2", stored=first.receipts[-1][0]))
    assert len(bench.billed()) == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_a_second_call_that_has_to_wait_does_not_have_the_first_one_paid_again(bench: Bench, status: int) -> None:
    bench.sandbox.config["openai.outcome"] = ["nonsense", "script"]
    bench.sandbox.faults.append(Broken("openai.chat", status=status, match="cannot be used", times=1))
    attempt, again = FakeAttempt("a-1"), FakeAttempt("a-2", in_doubt=("a-1",))
    with pytest.raises(Unknown):
        await bench.writer().write(BRIEF, CHANNEL, attempt)
    written = await bench.writer().write(BRIEF, CHANNEL, again)
    assert [bill["marker"] for bill in bench.billed()] == ["a-1", "a-2-second"]
    assert attempt.receipts[-1][2] == 0  # booked by the attempt that found it
    assert again.receipts[-1][2] == written.cost > 0


async def test_a_second_answer_lost_on_its_way_is_found_again(bench: Bench) -> None:
    bench.sandbox.config["openai.outcome"] = ["nonsense", "script"]
    bench.sandbox.faults.append(Broken("openai.chat", kind="drop_after", match="cannot be used"))
    bench.sandbox.faults.append(Broken("openai.list", kind="drop_before", times=3))
    with pytest.raises(Unknown):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("a-1"))
    bench.sandbox.faults.clear()
    written = await bench.writer().write(BRIEF, CHANNEL, FakeAttempt("a-2", in_doubt=("a-1",)))
    assert [bill["marker"] for bill in bench.billed()] == ["a-1", "a-1-second"]
    assert written.provider_ref == bench.billed()[1]["id"]


async def test_where_nothing_is_kept_a_wait_for_the_second_call_costs_an_attempt() -> None:
    """A wait costs none; the first call would be made again without end."""
    calls: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(json.loads(request.content))
        if len(calls) == 2:
            raise NotYet("the pool is full", retry_after=5)
        return httpx.Response(200, json=completion("nonsense"))

    async with answering(handler) as client:
        with pytest.raises(Transient, match="pool is full") as caught:
            await writer(client, sandbox=False, base_url="https://models.example/v1").write(BRIEF, CHANNEL, FakeAttempt())
    assert type(caught.value) is Transient
    assert caught.value.retry_after == 5


# --- a context that is too small ----------------------------------------------------------------------------------------------


async def test_a_server_whose_context_cannot_hold_the_room_for_the_answer_is_asked_for_less() -> None:
    asked: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content)["max_tokens"])
        if asked[-1] > 2_000:
            text = f"This model's maximum context length is 4096 tokens. However, you requested {asked[-1] + 900} tokens."
            return httpx.Response(400, json={"error": {"message": text, "type": "BadRequestError", "code": 400}})
        return httpx.Response(200, json=completion(json.dumps(raw_script())))

    async with answering(handler) as client:
        writes = writer(client, sandbox=False)
        await writes.write(BRIEF, CHANNEL, FakeAttempt())
        await writes.write(BRIEF, CHANNEL, FakeAttempt())
    assert asked == [8_000, 4_000, 2_000, 2_000]


async def test_a_prompt_that_does_not_fit_the_context_is_permanent_and_says_what_to_do() -> None:
    calls: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        said = {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error"}
        return httpx.Response(400, json={"error": {**said, "n_prompt_tokens": 900, "n_ctx": 512}})

    async with answering(handler) as client:
        with pytest.raises(Permanent, match="larger context"):
            await writer(client, sandbox=False).write(BRIEF, CHANNEL, FakeAttempt())
    assert len(calls) == 1


async def test_a_prompt_too_long_for_the_sandboxes_model_is_refused_as_the_api_would(bench: Bench) -> None:
    bench.sandbox.config["openai.context_tokens"] = 100
    with pytest.raises(Permanent, match="maximum context length is 100 tokens"):
        await bench.writer().write(BRIEF, CHANNEL, FakeAttempt())
    assert bench.billed() == []


# --- what each kind of server is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "limit", "kept", "free"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens", True, False),
        ("https://eu.api.openai.com/v1", "max_completion_tokens", True, False),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens", True, False),
        ("http://127.0.0.1:11434/v1", "max_tokens", False, True),
        ("http://localhost:1234/v1", "max_tokens", False, True),
        ("http://[::1]:8080/v1", "max_tokens", False, True),
        ("http://ollama:11434/v1", "max_tokens", False, True),
        ("http://192.168.1.7:8000/v1", "max_tokens", False, True),
        ("https://models.example/v1", "max_tokens", False, False),
        ("https://api.openai.com.evil.example/v1", "max_tokens", False, False),
    ],
)
async def test_the_output_is_bounded_by_the_name_that_this_kind_of_server_reads(
    base_url: str, limit: str, kept: bool, free: bool
) -> None:
    """Ollama and LM Studio silently ignore max_completion_tokens. OpenAI refuses max_tokens."""
    sent: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json=completion(json.dumps(raw_script())))

    async with answering(handler) as client:
        written = await writer(client, sandbox=False, base_url=base_url).write(BRIEF, CHANNEL, FakeAttempt())
    [body] = sent
    assert {"max_tokens", "max_completion_tokens"} & set(body) == {limit}
    assert body[limit] == 8_000
    assert ({"store", "metadata"} <= set(body)) is kept
    assert (written.cost == Decimal(0)) is free


async def test_a_lost_answer_of_a_server_of_ones_own_is_not_looked_for_and_no_money_is_mentioned() -> None:
    methods: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        methods.append(request.method)
        raise httpx.ReadTimeout("no complete answer within 600 s")

    async with answering(handler) as client:
        with pytest.raises(Transient, match="PHANTOMS_OPENAI_SECONDS") as caught:
            await writer(client, sandbox=False).write(BRIEF, CHANNEL, FakeAttempt())
    assert methods == ["POST"]
    assert "billed" not in str(caught.value)


async def test_a_call_cut_at_its_deadline_is_looked_for_for_a_minute_before_it_could_be_made_again(bench: Bench) -> None:
    """In the same run too: a completion that ends just after the deadline is listed then, and it was billed."""
    bench.sandbox.faults.append(Broken("openai.chat", kind="drop_after", times=1))
    bench.sandbox.config["openai.indexing_seconds"] = 30
    writes = bench.writer()

    class Clock:
        """Lets the sandbox's time pass with ours."""

        async def sleep(self, seconds: float) -> None:
            bench.sandbox.advance(seconds)

    writes._completions._clock = Clock()  # type: ignore[assignment]
    written = await writes.write(BRIEF, CHANNEL, FakeAttempt("a-1"))
    assert [bill["id"] for bill in bench.billed()] == [written.provider_ref]
    assert bench.sandbox.calls == {"openai.chat": 1, "openai.list": 3}

"""The vendor's own client, unchanged, against the sandbox: every call of the API that we know of, and the form of errors."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import av
import httpx
import openai
import pytest
from aiohttp.test_utils import TestServer
from openai.types import ModerationTextInputParam
from pydantic import BaseModel

from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.openai import routes as stand_in

MODEL = "gpt-6-luna"
ASK: list[Any] = [{"role": "user", "content": '{"title": "Tides", "target_words": 40}'}]


class Post(BaseModel):
    """The answer that the model must give."""

    title: str
    caption: str


class Api:
    """The sandbox and the vendor's client."""

    def __init__(self, sandbox: Sandbox, client: openai.AsyncOpenAI, url: str) -> None:
        self.sandbox, self.client, self.url = sandbox, client, url


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [stand_in.routes(sandbox)])) as server:
        url = str(server.make_url("/openai/v1"))
        async with openai.AsyncOpenAI(api_key="sandbox-a", base_url=url, max_retries=0) as client:
            yield Api(sandbox, client, url)


async def test_completions_are_created_parsed_and_streamed(api: Api) -> None:
    made = await api.client.chat.completions.create(model=MODEL, messages=ASK)
    assert "Tides" in (made.choices[0].message.content or "")
    parsed = await api.client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Post)
    assert parsed.choices[0].message.parsed is not None
    assert parsed.choices[0].message.parsed.title == "Tides"
    async with api.client.chat.completions.stream(
        model=MODEL, messages=ASK, response_format=Post, stream_options={"include_usage": True}
    ) as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert events.count("content.delta") > 3
    assert final.choices[0].message.parsed is not None
    assert final.usage is not None
    assert final.usage.total_tokens > 0
    raw = await api.client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw])
    assert "Tides" in text
    assert len(api.sandbox.ledger) == 4


async def test_stored_completions_are_updated_and_deleted(api: Api) -> None:
    completions = api.client.chat.completions
    made = await completions.create(model=MODEL, messages=ASK, store=True, metadata={"attempt": "a"})
    assert [message.content async for message in completions.messages.list(made.id)] == [ASK[0]["content"]]
    changed = await completions.update(made.id, metadata={"attempt": "b"})
    assert changed.metadata == {"attempt": "b"}
    assert [found.id async for found in completions.list(metadata={"attempt": "a"})] == []
    assert [found.id async for found in completions.list(metadata={"attempt": "b"})] == [made.id]
    assert (await completions.delete(made.id)).deleted
    assert [found.id async for found in completions.list()] == []
    with pytest.raises(openai.NotFoundError):
        await completions.update(made.id, metadata={})


async def test_models_are_listed_and_retrieved_and_those_that_went_are_neither(api: Api) -> None:
    listed = {model.id: model async for model in api.client.models.list()}
    assert (await api.client.models.retrieve(MODEL)).id == MODEL
    assert listed["gpt-4o"].shutdown_date == "2027-01-14"
    assert "gpt-4" not in listed
    for name in ("gpt-4", "gpt-5.1-mini"):
        with pytest.raises(openai.NotFoundError) as caught:
            await api.client.models.retrieve(name)
        assert caught.value.code == "model_not_found"


async def test_responses_are_created_parsed_retrieved_and_deleted(api: Api) -> None:
    responses = api.client.responses
    made = await responses.create(model=MODEL, input=ASK[0]["content"], instructions="Be brief.", metadata={"attempt": "a"})
    assert made.status == "completed"
    assert "Tides" in made.output_text
    parsed = await responses.parse(model=MODEL, input=ASK, text_format=Post)
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.title == "Tides"
    again = await responses.retrieve(made.id)
    assert (again.output_text, again.metadata) == (made.output_text, {"attempt": "a"})
    assert [item.type async for item in responses.input_items.list(made.id)] == ["message"]
    await responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await responses.retrieve(made.id)
    unkept = await responses.create(model=MODEL, input="Tides", store=False)
    with pytest.raises(openai.NotFoundError):
        await responses.retrieve(unkept.id)
    short = await responses.create(model=MODEL, input="Tides", max_output_tokens=16)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"


async def test_a_response_in_the_background_is_asked_for_until_it_is_there_or_cancelled(api: Api) -> None:
    api.sandbox.config["openai.background_seconds"] = 100
    responses = api.client.responses
    made, other = [await responses.create(model=MODEL, input="Tides", background=True) for _ in range(2)]
    assert (made.status, made.output_text) == ("queued", "")
    assert (await responses.retrieve(made.id)).status == "in_progress"
    assert (await responses.cancel(other.id)).status == "cancelled"
    api.sandbox.advance(101)
    ended = await responses.retrieve(made.id)
    assert ended.status == "completed"
    assert "Tides" in ended.output_text
    assert (await responses.cancel(other.id)).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="store"):
        await responses.create(model=MODEL, input="Tides", background=True, store=False)
    at_once = await responses.create(model=MODEL, input="Tides")
    with pytest.raises(openai.BadRequestError, match="background"):
        await responses.cancel(at_once.id)


async def test_moderations_flag_what_the_setting_names(api: Api) -> None:
    api.sandbox.config["openai.flagged_words"] = ["shark attack"]
    answer = await api.client.moderations.create(input=["calm sea", "A Shark Attack!"])
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].categories.violence
    calm: ModerationTextInputParam = {"type": "text", "text": "calm"}
    one = await api.client.moderations.create(model="omni-moderation-latest", input=[calm])
    assert len(one.results) == 1


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
async def test_speech_is_real_sound_of_the_right_length_in_each_format(api: Api, kind: Any) -> None:
    answer = await api.client.audio.speech.create(
        model="gpt-4o-mini-tts", voice="alloy", input="one two three four five", response_format=kind, speed=0.5
    )
    content = await answer.aread()
    if kind == "pcm":
        seconds = len(content) / 2 / 24_000
    else:
        with av.open(io.BytesIO(content), "r") as sound:
            seconds = sum(frame.samples / frame.sample_rate for frame in sound.decode(sound.streams.audio[0]))
    assert abs(seconds - 4) < 0.2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "gpt-6-luna"}, "not a speech model"),
        ({"voice": "robot"}, "Supported values"),
        ({"input": ""}, "1 to 4096"),
        ({"input": "x" * 4097}, "1 to 4096"),
        ({"response_format": "ogg"}, "Supported values"),
        ({"speed": 9}, "between 0.25 and 4"),
        ({"speed": "fast"}, "expected a decimal"),
    ],
)
async def test_speech_that_the_api_would_refuse_is_refused_and_not_billed(api: Api, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.APIStatusError, match=said):
        await api.client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": "hello", **changed})
    assert api.sandbox.ledger == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/images/generations", 404),
        ("GET", "", 404),
        ("PUT", "/models", 405),
        ("GET", "/moderations", 405),
    ],
)
async def test_an_address_that_is_not_there_answers_in_the_form_of_the_apis_errors(
    api: Api, method: str, path: str, status: int
) -> None:
    """It used to be aiohttp's page in plain text, which a client cannot read."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, api.url + path, headers={"Authorization": "Bearer sandbox"})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

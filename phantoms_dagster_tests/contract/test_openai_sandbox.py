"""The stand-in of the chat completions API: the vendor's own client unchanged, its refusals, what it writes, its spec.

The spec's schemas are checked when PHANTOMS_TEST_SPECS names a folder with `openai.subset.openapi.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from aiohttp.test_utils import TestServer
from jsonschema import Draft202012Validator

from phantoms_dagster.providers.openai import prompt as openai_prompt
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.openai import routes as stand_in
from phantoms_dagster.sandbox.openai.schema import SchemaRefused, check_strict, conforming
from phantoms_dagster_tests.vendor_specs import FOLDER, published

ASK: dict[str, Any] = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": '{"title": "Tides", "target_words": 72}'}]}
SCRIPT: dict[str, Any] = {**ASK, "response_format": openai_prompt.RESPONSE_FORMAT}


class Api:
    """The sandbox over HTTP, with the key of one account."""

    def __init__(self, sandbox: Sandbox, base_url: str, client: httpx.AsyncClient) -> None:
        self.sandbox, self.base_url, self.client = sandbox, base_url, client

    async def post(self, key: str = "sandbox-a", **body: Any) -> httpx.Response:
        return await self.client.post("/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})

    async def get(self, path: str, key: str = "sandbox-a", **query: str) -> httpx.Response:
        return await self.client.get(path, params=query, headers={"Authorization": f"Bearer {key}"})

    async def script(self, **body: Any) -> dict[str, Any]:
        answer = await self.post(**{**SCRIPT, **body})
        assert answer.status_code == 200, answer.text
        return json.loads(answer.json()["choices"][0]["message"]["content"])  # type: ignore[no-any-return]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [stand_in.routes(sandbox)])) as server:
        base_url = str(server.make_url("/openai/v1"))
        async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
            yield Api(sandbox, base_url, client)


# --- the vendor's client ------------------------------------------------------------------------------------------------


async def test_the_vendors_client_works_unchanged(api: Api) -> None:
    async with openai.AsyncOpenAI(api_key="sandbox", base_url=api.base_url, max_retries=0) as client:
        done = await client.chat.completions.create(**SCRIPT, store=True, metadata={"attempt": "x-1"})
        assert done.id.startswith("chatcmpl-")
        assert re.fullmatch(r"req_[0-9a-f]{32}", done._request_id or "")
        assert done.usage is not None
        assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 100
        await client.chat.completions.create(**SCRIPT, store=True, metadata={"attempt": "x-2"})

        found = [c.id async for c in client.chat.completions.list(metadata={"attempt": "x-1"}, limit=1)]
        assert found == [done.id]
        assert (await client.chat.completions.retrieve(done.id)).choices == done.choices
        assert "gpt-6-luna" in [model.id async for model in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.retrieve("chatcmpl-none")
    async with openai.AsyncOpenAI(api_key="sk-real", base_url=api.base_url, max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.models.list()
        assert caught.value.code == "invalid_api_key"


async def test_only_what_was_stored_is_listed_page_by_page_and_to_its_own_account(api: Api) -> None:
    ids = [(await api.post(**SCRIPT, store=True, metadata={"run": str(i % 2)})).json()["id"] for i in range(4)]
    await api.post(**SCRIPT)
    first = (await api.get("/chat/completions", limit="3")).json()
    assert ([c["id"] for c in first["data"]], first["has_more"]) == (ids[:3], True)
    rest = (await api.get("/chat/completions", limit="3", after=first["last_id"])).json()
    assert ([c["id"] for c in rest["data"]], rest["has_more"]) == (ids[3:], False)
    odd = (await api.get("/chat/completions", **{"metadata[run]": "1", "order": "desc"})).json()
    assert [c["id"] for c in odd["data"]] == [ids[3], ids[1]]
    assert (await api.get("/chat/completions", model="other")).json()["data"] == []
    assert (await api.get("/chat/completions", key="sandbox-b")).json()["data"] == []
    assert (await api.get(f"/chat/completions/{ids[0]}", key="sandbox-b")).status_code == 404


async def test_a_completion_is_found_by_each_of_its_metadata_and_by_no_others(api: Api) -> None:
    ids = [(await api.post(**SCRIPT, store=True, metadata={"attempt": a, "run": "1"})).json()["id"] for a in ("x", "y")]

    async def found(key: str = "sandbox-a", **marks: str) -> list[str]:
        answer = await api.get("/chat/completions", key, **{f"metadata[{name}]": value for name, value in marks.items()})
        return [completion["id"] for completion in answer.json()["data"]]

    assert await found(attempt="x") == ids[:1]
    assert await found(run="1") == ids
    assert await found(run="1", attempt="y") == ids[1:]
    assert await found(attempt="x", run="2") == []
    assert await found(attempt="1") == []
    assert await found("sandbox-b", attempt="x") == []


async def test_a_completion_is_listed_only_after_it_was_indexed(api: Api) -> None:
    api.sandbox.config["openai.indexing_seconds"] = 60
    await api.post(**SCRIPT, store=True, metadata={"attempt": "x"})
    assert (await api.get("/chat/completions")).json()["data"] == []
    api.sandbox.advance(61)
    assert len((await api.get("/chat/completions")).json()["data"]) == 1


# --- refusals -----------------------------------------------------------------------------------------------------------


def _schema(**changed: Any) -> dict[str, Any]:
    fine = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    return {**fine, **changed}


def _format(schema: Any, **changed: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema, **changed}}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"messages": ASK["messages"]}, 400, "you must provide a model"),
        ({**ASK, "model": "gpt-4"}, 404, "shut down"),
        ({"model": "m"}, 400, "Missing required parameter: 'messages'"),
        ({**ASK, "messages": []}, 400, "empty array"),
        ({**ASK, "messages": "hi"}, 400, "Invalid type for 'messages'"),
        ({**ASK, "messages": [{"role": "robot", "content": "x"}]}, 400, "Supported values"),
        ({**ASK, "messages": [{"role": "user"}]}, 400, "expected a string, got null"),
        ({**ASK, "nonsense": 1}, 400, "Unknown parameter: 'nonsense'"),
        ({**ASK, "metadata": {"a": "b"}}, 400, "only allowed when 'store' is enabled"),
        ({**ASK, "store": True, "metadata": {"a": 1}}, 400, "Invalid type for 'metadata.a'"),
        ({**ASK, "store": True, "metadata": {"a": "b" * 513}}, 400, "512"),
        ({**ASK, "store": True, "metadata": {str(i): "b" for i in range(17)}}, 400, "at most 16"),
        ({**ASK, "store": "yes"}, 400, "expected a boolean"),
        ({**ASK, "temperature": 0.2}, 400, "Only the default (1)"),
        ({**ASK, "model": "gpt-4o-mini", "temperature": 3}, 400, "<= 2"),
        ({**ASK, "max_tokens": 5}, 400, "Use 'max_completion_tokens' instead"),
        ({**ASK, "max_completion_tokens": 0}, 400, "out of range"),
        ({**ASK, "n": 0}, 400, "out of range"),
        ({**ASK, "model": "gpt-5.1-mini"}, 404, "does not exist"),
        ({**ASK, "model": "tts-1"}, 404, "not a chat model"),
        ({**ASK, "stream": "yes"}, 400, "expected a boolean"),
        ({**ASK, "stream_options": {"include_usage": True}}, 400, "only allowed when 'stream' is enabled"),
        ({**ASK, "seed": "7"}, 400, "Invalid type for 'seed': expected an integer, but got a string"),
        ({**ASK, "seed": True}, 400, "but got a boolean"),
        ({**ASK, "user": 7}, 400, "Invalid type for 'user'"),
        ({**ASK, "stop": 7}, 400, "Invalid type for 'stop'"),
        ({**ASK, "reasoning_effort": "much"}, 400, "Supported values are: 'none'"),
        ({**ASK, "model": "gpt-4o", "reasoning_effort": "low"}, 400, "not supported with this model"),
        ({**ASK, "service_tier": 1}, 400, "Invalid type for 'service_tier'"),
        ({**ASK, "max_completion_tokens": "many"}, 400, "expected an integer"),
        ({**ASK, "max_completion_tokens": 200_000}, 400, "at most 128000 completion tokens"),
        ({**ASK, "model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 130_000}]}, 400, "maximum context length"),
        ({**ASK, "tools": [{"type": "function"}]}, 400, "the sandbox has no 'tools'"),
        ({**ASK, "response_format": {"type": "xml"}}, 400, "Supported values"),
        ({**ASK, "response_format": {"type": "json_object"}}, 400, "must contain the word 'json'"),
        ({**ASK, "response_format": {"type": "json_schema"}}, 400, "Missing required parameter"),
        ({**ASK, "response_format": _format(None)}, 400, "json_schema.schema"),
        ({**ASK, "response_format": _format(_schema(), name="a b")}, 400, "does not match pattern"),
        ({**ASK, "response_format": _format(_schema(required=[]))}, 400, "Missing 'a'"),
        ({**ASK, "response_format": _format(_schema(required=["a", "b"]))}, 400, "names 'b'"),
        ({**ASK, "response_format": _format(_schema(additionalProperties=True))}, 400, "to be false"),
        ({**ASK, "response_format": _format({"type": "array", "items": {"type": "string"}})}, 400, 'type: "object"'),
        ({**ASK, "response_format": _format(_schema(anyOf=[{"type": "string"}]))}, 400, "at the root"),
        ({**ASK, "response_format": _format(_schema(allOf=[]))}, 400, "'allOf' is not permitted"),
        (
            {**ASK, "response_format": _format(_schema(properties={"a": {"type": "string", "minLength": 1}}))},
            400,
            "'minLength' is not",
        ),
        ({**ASK, "response_format": _format(_schema(properties={"a": {}}))}, 400, "'type' key"),
        ({**ASK, "response_format": _format(_schema(properties={"a": {"type": "array"}}))}, 400, "missing items"),
        ({**ASK, "response_format": _format(_schema(properties={"a": {"type": "text"}}))}, 400, "not a valid type"),
    ],
)
async def test_what_the_api_would_refuse_is_refused_in_its_words_and_not_billed(
    api: Api, body: dict[str, Any], status: int, said: str
) -> None:
    answer = await api.post(**body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert said in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert api.sandbox.ledger == []


async def test_a_body_that_is_not_a_json_object_is_refused(api: Api) -> None:
    for content in (b"{", b"[]"):
        answer = await api.client.post("/chat/completions", content=content, headers={"Authorization": "Bearer sandbox"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("header", [None, "", "sandbox", "Bearer", "Bearer sk-abc", "Basic sandbox"])
async def test_a_missing_or_foreign_key_is_refused_everywhere(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("POST", "/chat/completions"), ("GET", "/chat/completions"), ("GET", "/models")):
        answer = await api.client.request(method, path, headers=headers, json=ASK if method == "POST" else None)
        assert answer.status_code == 401, answer.text
        assert "sk-abc" not in answer.text


def _nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        inner = _schema(properties={"a": inner})
    return inner


def test_the_strict_subset_has_its_limits() -> None:
    check_strict(_nested(9))
    for schema in (
        _nested(11),
        _schema(properties={"a": {"type": "string", "enum": [str(i) for i in range(1001)]}}),
        _schema(properties={"a": {"type": "string", "enum": [f"{i:0100}" for i in range(251)]}}),
        _schema(properties={f"p{i}": {"type": "string"} for i in range(5001)}, required=[f"p{i}" for i in range(5001)]),
    ):
        with pytest.raises(SchemaRefused):
            check_strict(schema)


def test_a_schema_is_refused_each_time_and_the_next_one_is_not() -> None:
    for _ in range(2):
        with pytest.raises(SchemaRefused, match="additionalProperties"):
            check_strict(_schema(additionalProperties=True))
        check_strict(_schema())
        assert conforming(_schema(), {"a": 7}) == {"a": "Phantoms sandbox"}
        assert conforming(_schema(properties={"a": {"type": "integer"}}), {"a": 7}) == {"a": 7}


def test_other_strict_schemas_are_answered_with_something_that_conforms() -> None:
    item = _schema(properties={"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}})
    schema = _schema(
        properties={
            "title": {"type": "string"},
            "many": {"type": "array", "items": item, "minItems": 2},
            "kind": {"type": "string", "enum": ["x", "y"]},
            "score": {"type": "number", "minimum": 3},
            "maybe": {"type": ["boolean", "null"]},
        },
        required=["title", "many", "kind", "score", "maybe"],
    ) | {"$defs": {"n": {"type": "integer"}}}
    check_strict(schema)
    value = conforming(schema, {"title": "Tides"})
    Draft202012Validator(schema).validate(value)
    assert value["title"] == "Tides"
    with pytest.raises(SchemaRefused):
        conforming(_schema(properties={"a": {"type": "string", "pattern": "^q{9}$"}}), {})


# --- what it writes -----------------------------------------------------------------------------------------------------


async def test_a_billed_script_is_in_the_ledger_with_its_marker(api: Api) -> None:
    answer = (await api.post(**SCRIPT, store=True, metadata={"attempt": "m-1"})).json()
    [entry] = api.sandbox.ledger
    del entry["at"]
    assert len(entry.pop("account")) == 12
    assert entry == {"kind": "script", "id": answer["id"], "title": "Tides", "marker": "m-1", "model": "gpt-6-luna"}


async def test_the_brief_is_found_in_prose_and_in_parts(api: Api) -> None:
    parts = [{"type": "text", "text": 'Write about {this}: {"title": "Lighthouses", "facts": ["Some are {tall}"]} please'}]
    script = await api.script(messages=[{"role": "system", "content": '{"title": "no"}'}, {"role": "user", "content": parts}])
    assert script["title"] == "Lighthouses"
    assert "tall" in script["scenes"][0]["narration"]
    bare = await api.script(messages=[{"role": "user", "content": "Write about lighthouses"}])
    assert bare["title"] == "Write about lighthouses"


async def test_the_same_seed_gives_the_same_scripts_and_asking_again_gives_another(api: Api) -> None:
    first, second = await api.script(), await api.script()
    assert first != second
    fresh = Sandbox(seed=1)
    async with (
        TestServer(application(fresh, [stand_in.routes(fresh)])) as server,
        httpx.AsyncClient(base_url=str(server.make_url("/openai/v1"))) as client,
    ):
        assert [await Api(fresh, "", client).script() for _ in range(2)] == [first, second]


async def test_a_token_limit_cuts_the_answer_short(api: Api) -> None:
    answer = (await api.post(**SCRIPT, max_completion_tokens=50)).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] <= 60


async def test_several_choices_are_several_takes(api: Api) -> None:
    choices = (await api.post(**SCRIPT, n=3)).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) > 1


async def test_plain_text_and_plain_json_can_be_asked_for_too(api: Api) -> None:
    text = (await api.post(**ASK)).json()["choices"][0]["message"]["content"]
    assert text.startswith("Tides\n\n")
    wanted = [{"role": "user", "content": 'as json: {"title": "Tides"}'}]
    script = await api.script(messages=wanted, response_format={"type": "json_object"})
    assert script["title"] == "Tides"


# --- the published spec -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    found = published("openai.subset.openapi.json")
    if found is None:
        pytest.skip(f"{FOLDER} does not name a folder with openai.subset.openapi.json")
    return found


def _conforms(spec: dict[str, Any], name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
    errors = [f"{list(error.absolute_path)}: {error.message[:200]}" for error in Draft202012Validator(schema).iter_errors(value)]
    assert errors == []


async def test_every_answer_conforms_to_the_spec(spec: dict[str, Any], api: Api) -> None:
    for outcome in stand_in.OUTCOMES:
        api.sandbox.config["openai.outcome"] = outcome
        _conforms(spec, "CreateChatCompletionResponse", (await api.post(**SCRIPT, store=True, metadata={"a": "b"})).json())
    _conforms(spec, "ChatCompletionList", (await api.get("/chat/completions", limit="3")).json())
    _conforms(spec, "ChatCompletionList", (await api.get("/chat/completions", model="none")).json())
    _conforms(spec, "ListModelsResponse", (await api.get("/models")).json())
    for refused in (await api.post(model="m"), await api.get("/models", key="x"), await api.get("/chat/completions/none")):
        _conforms(spec, "ErrorResponse", refused.json())

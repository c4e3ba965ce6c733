"""The stand-in of OpenAI's chat completions API, below `/openai/v1`: chat completions, those stored, models.

The brief is any JSON object found in a user message; the writer in `openai_writer` makes a script of it (no language model is
involved, and the caption says so). Settings (`POST /_sandbox/config`): `openai.outcome` is what comes of a good request:
`script`, `refusal`, `length`, `content_filter`, `empty` or `prose`, all billed; `openai.indexing_seconds` until a stored
completion is listed. What is refused belongs in `openai_request`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.openai_request import ApiError, account, check
from phantoms_dagster.sandbox.openai_schema import SchemaRefused, conforming
from phantoms_dagster.sandbox.openai_writer import compose, tokens

PREFIX = "/openai/v1"
MODELS = ("gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano", "gpt-5.1", "gpt-5.1-mini", "gpt-5-mini", "gpt-4.1-mini", "gpt-4o-mini")
SHUTDOWNS = {"gpt-5-mini": "2026-12-11", "gpt-4.1-mini": "2027-01-14", "gpt-4o-mini": "2027-01-14", "gpt-5.1": "2027-04-01"}
OUTCOMES = ("script", "refusal", "length", "content_filter", "empty", "prose")
REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE = 10_000, 2_000_000
_METADATA = re.compile(r"metadata\[(.+)\]")

Answer = Callable[[web.Request, str], Awaitable[dict[str, Any]]]


@dataclass
class _State:
    """`stored` is by account and completion id, `marked` by account and one of the metadata; `takes` counts equal prompts, so
    that asking again gives another script.
    """

    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    marked: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    takes: dict[str, int] = field(default_factory=dict)
    requests: itertools.count[int] = field(default_factory=itertools.count)


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """Routes `openai.chat`, `openai.list`, `openai.retrieve` and `openai.models`."""
    state = _State()
    sandbox.state["openai"] = state

    async def chat(request: web.Request, owner: str) -> dict[str, Any]:
        try:
            body = await request.json()
        except ValueError:
            body = None
        check(body)
        return _complete(sandbox, state, owner, body)

    async def list_stored(request: web.Request, owner: str) -> dict[str, Any]:
        visible_before = sandbox.now() - float(sandbox.setting("openai.indexing_seconds", 0))
        marks = [(name[1], value) for key, value in request.query.items() if (name := _METADATA.fullmatch(key))]
        known = state.marked.get((owner, *marks[0]), []) if marks else state.stored.get(owner, {}).values()
        found = [c for c in known if c["created"] <= visible_before and all(c["metadata"].get(k) == v for k, v in marks)]
        return _page(found, request)

    async def retrieve(request: web.Request, owner: str) -> dict[str, Any]:
        wanted = request.match_info["id"]
        try:
            return state.stored.get(owner, {})[wanted]
        except KeyError:
            raise ApiError(404, f"Chat completion with id '{wanted}' not found.", param="completion_id") from None

    async def models(_: web.Request, __: str) -> dict[str, Any]:
        fixed = {"object": "model", "created": 1_760_000_000, "owned_by": "phantoms-sandbox"}
        return {"object": "list", "data": [{"id": m, **fixed, "shutdown_date": SHUTDOWNS.get(m)} for m in MODELS]}

    def endpoint(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            number = next(state.requests)
            headers = {
                "x-request-id": f"req_{_digest(sandbox.seed, 'request', number)[:32]}",
                "openai-version": "2020-10-01",
                "openai-processing-ms": "1",
                "x-ratelimit-limit-requests": str(REQUESTS_PER_MINUTE),
                "x-ratelimit-remaining-requests": str(REQUESTS_PER_MINUTE - 1),
                "x-ratelimit-reset-requests": "6ms",
                "x-ratelimit-limit-tokens": str(TOKENS_PER_MINUTE),
                "x-ratelimit-remaining-tokens": str(TOKENS_PER_MINUTE - 1_000),
                "x-ratelimit-reset-tokens": "30ms",
            }
            try:
                owner = account(request.headers.get("Authorization"))
                return web.json_response(await answer(request, owner), headers=headers)
            except ApiError as error:
                return web.json_response(error.body, status=error.status, headers=headers)

        return handle

    return [
        web.post(f"{PREFIX}/chat/completions", endpoint(chat), name="openai.chat"),
        web.get(f"{PREFIX}/chat/completions", endpoint(list_stored), name="openai.list"),
        web.get(f"{PREFIX}/chat/completions/{{id}}", endpoint(retrieve), name="openai.retrieve"),
        web.get(f"{PREFIX}/models", endpoint(models), name="openai.models"),
    ]


def _complete(sandbox: Sandbox, state: _State, owner: str, body: dict[str, Any]) -> dict[str, Any]:
    """The completion, billed: from here on the money is spent."""
    prompt = _digest(sandbox.seed, owner, body["model"], json.dumps(body["messages"], sort_keys=True))
    take = state.takes.get(prompt, 0)
    brief = _brief(body["messages"])
    outcome = sandbox.setting("openai.outcome", "script")
    if outcome not in OUTCOMES:
        raise ApiError(400, f"openai.outcome must be one of {', '.join(OUTCOMES)}", param="openai.outcome")

    scripts = [compose(brief, seed=f"{prompt}/{take}/{i}") for i in range(body.get("n") or 1)]
    texts = [_text(script, body.get("response_format")) for script in scripts]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    choices = [] if outcome == "empty" else [_choice(i, text, outcome, limit) for i, text in enumerate(texts)]
    completion: dict[str, Any] = {
        "id": f"chatcmpl-{_digest(prompt, take)[:29]}",
        "object": "chat.completion",
        "created": int(sandbox.now()),
        "model": body["model"],
        "choices": choices,
        "usage": _usage(body, choices),
        "service_tier": "default",
        "system_fingerprint": f"fp_{_digest(sandbox.seed)[:10]}",
    }
    metadata = body.get("metadata") or {}
    state.takes[prompt] = take + 1
    if body.get("store"):
        completion["metadata"] = metadata
        state.stored.setdefault(owner, {})[completion["id"]] = completion
        for mark in metadata.items():
            state.marked.setdefault((owner, *mark), []).append(completion)
    title = brief.get("title") if isinstance(brief.get("title"), str) else scripts[0]["title"]
    sandbox.record("script", id=completion["id"], title=title, marker=metadata.get("attempt"), model=body["model"])
    return completion


def _choice(index: int, text: str, outcome: str, limit: int | None) -> dict[str, Any]:
    reason, content, refusal = "stop", text, ""
    if outcome == "refusal":
        content, refusal = "", "I'm sorry, but I can't help with that request."
    elif outcome == "content_filter":
        reason, content = "content_filter", ""
    elif outcome == "prose":
        content = "Sure! Here is your script:\n\n" + text
    elif outcome == "length" or (limit is not None and tokens(text) > limit):
        reason, content = "length", text[: 4 * min(limit or 10**9, tokens(text) // 2)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refusal else content,
        "refusal": refusal or None,
        "annotations": [],
    }
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _usage(body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    wanted = json.dumps(body.get("response_format") or "")
    prompt = 3 + sum(4 + tokens(_said(message)) for message in body["messages"]) + tokens(wanted)
    answer = sum(tokens(choice["message"]["content"] or choice["message"]["refusal"] or "") + 3 for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _text(script: dict[str, Any], wanted: dict[str, Any] | None) -> str:
    kind = (wanted or {}).get("type", "text")
    if kind == "text":
        return "\n\n".join(
            [script["title"], script["hook"], *(scene["narration"] for scene in script["scenes"]), script["caption"]]
        )
    schema = (wanted or {}).get("json_schema", {}).get("schema")
    try:
        value = script if schema is None else conforming(schema, script)
    except SchemaRefused as error:
        raise ApiError(400, str(error), param="response_format", code="sandbox_unsupported_schema") from error
    return json.dumps(value, ensure_ascii=False)


def _said(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")


def _brief(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last JSON object of the last user message that has one; without any, the user's words are the title."""
    said = [_said(message) for message in messages if message["role"] == "user"]
    decoder = json.JSONDecoder()
    for text in reversed(said):
        brief: dict[str, Any] | None = None
        end = 0
        for brace in re.finditer(r"\{", text):
            if brace.start() < end:
                continue
            try:
                found, end = decoder.raw_decode(text, brace.start())
            except ValueError:
                continue
            brief = found
        if brief is not None:
            return brief
    return {"title": " ".join(said)[:200]}


def _page(found: list[dict[str, Any]], request: web.Request) -> dict[str, Any]:
    query = request.query
    if "model" in query:
        found = [c for c in found if c["model"] == query["model"]]
    order, limit = query.get("order", "asc"), query.get("limit", "20")
    if order not in ("asc", "desc"):
        text = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
        raise ApiError(400, text, param="order", code="invalid_value")
    if not limit.isdigit() or not 1 <= int(limit) <= 100:
        raise ApiError(400, f"Invalid 'limit': expected an integer between 1 and 100, but got {limit}.", param="limit")
    if order == "desc":
        found = found[::-1]
    if "after" in query:
        ids = [c["id"] for c in found]
        found = found[ids.index(query["after"]) + 1 :] if query["after"] in ids else []
    page = found[: int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(found) > len(page),
    }


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()

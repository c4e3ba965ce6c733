"""The stand-in for OpenAI's chat completions API, below `/openai/v1`: chat completions, stored completions, models.

The brief is a JSON object in a user message. `writer` turns it into a script; no language model is involved, and the caption says
so. `request` refuses invalid requests. Settings (`POST /_sandbox/config`):

- `openai.outcome`: the outcome of a valid request, always billed: `script`, `refusal`, `length`, `content_filter`, `empty`, or a
  script as models spoil it (`prose` around it, `thinking` before it, `links` on the screen, `long` texts, `nonsense`). The
  entries of a list are used in turn.
- `openai.indexing_seconds`: the time until a stored completion is listed.
- `openai.context_tokens`: the context of every model.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.openai import responses as openai_responses
from phantoms_dagster.sandbox.openai import speech as openai_speech
from phantoms_dagster.sandbox.openai.gate import PREFIX, OpenAiApiError, dead_ends, digest, gate, json_body, missing
from phantoms_dagster.sandbox.openai.models import MODELS, model_named, offered
from phantoms_dagster.sandbox.openai.request import check, check_metadata, said
from phantoms_dagster.sandbox.openai.schema import SchemaRefused, conforming
from phantoms_dagster.sandbox.openai.writer import compose, tokens

OUTCOMES = ("script", "refusal", "length", "content_filter", "empty", "prose", "thinking", "links", "long", "nonsense")
COMPLETION = "openai.completion"  # the kind of the rows of stored completions
_METADATA = re.compile(r"metadata\[(.+)\]")


@dataclass
class _State:
    """`stored`: by account and completion id. `marked`: by account and metadata entry. `takes` counts equal prompts.

    With that count, asking again gives another script.
    """

    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    marked: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    takes: dict[str, int] = field(default_factory=dict)
    asked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def restore(self, sandbox: Sandbox) -> None:
        """Restore the state of an earlier process."""
        for number, row in sandbox.kept_rows(COMPLETION):
            self.stored.setdefault(row["owner"], {})[number] = row["completion"]
            self.asked[number] = row["messages"]
            self.mark(row["owner"], row["completion"])
        self.takes.update(sandbox.kept_rows("openai.take"))

    def keep(self, sandbox: Sandbox, owner: str, completion: dict[str, Any]) -> None:
        """Save a stored completion with its state at the end of this request."""
        row = {"owner": owner, "completion": completion, "messages": self.asked[completion["id"]]}
        sandbox.keep(COMPLETION, completion["id"], row)

    def mark(self, owner: str, completion: dict[str, Any]) -> None:
        """Index the completion by its metadata."""
        for mark in completion["metadata"].items():
            self.marked.setdefault((owner, *mark), []).append(completion)

    def unmark(self, owner: str, completion: dict[str, Any]) -> None:
        """Remove the completion from the index."""
        for mark in completion["metadata"].items():
            self.marked[owner, *mark].remove(completion)


def _outcome(sandbox: Sandbox) -> str:
    """The outcome of this request: the setting, or the next entry of a list. The last entry is used from then on."""
    setting: str | list[str] = sandbox.setting("openai.outcome", "script")
    answered = sandbox.numbers.get("openai.answered", 0)
    wanted = setting if isinstance(setting, str) else setting[min(answered, len(setting) - 1)]
    if wanted not in OUTCOMES:
        raise OpenAiApiError(400, f"openai.outcome must be one of {', '.join(OUTCOMES)}", param="openai.outcome")
    sandbox.number("openai.answered", lazily=True)
    return wanted


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """Routes for chat completions, stored completions, models, speech, moderations and responses, named `openai.<what>`."""
    state = _State()
    state.restore(sandbox)
    sandbox.state["openai"] = state

    async def chat(request: web.Request, owner: str) -> dict[str, Any] | web.StreamResponse:
        body = await json_body(request)
        check(body, now=sandbox.now(), context=sandbox.setting("openai.context_tokens", None))
        completion = _complete(sandbox, state, owner, body)
        return await stream(request, completion, body) if body.get("stream") else completion

    async def list_stored(request: web.Request, owner: str) -> dict[str, Any]:
        visible_before = sandbox.now() - float(sandbox.setting("openai.indexing_seconds", 0))
        marks = [(name[1], value) for key, value in request.query.items() if (name := _METADATA.fullmatch(key))]
        known = state.marked.get((owner, *marks[0]), []) if marks else state.stored.get(owner, {}).values()
        found = [c for c in known if c["created"] <= visible_before and all(c["metadata"].get(k) == v for k, v in marks)]
        return page_of(found, request)

    def kept(request: web.Request, owner: str) -> dict[str, Any]:
        wanted = request.match_info["id"]
        try:
            return state.stored.get(owner, {})[wanted]
        except KeyError:
            raise OpenAiApiError(404, f"Chat completion with id '{wanted}' not found.", param="completion_id") from None

    async def retrieve(request: web.Request, owner: str) -> dict[str, Any]:
        return kept(request, owner)

    async def messages(request: web.Request, owner: str) -> dict[str, Any]:
        completion = kept(request, owner)
        found = [
            {"id": f"{completion['id']}-{i}", **message, "content_parts": None}
            for i, message in enumerate(state.asked[completion["id"]])
        ]
        return page_of(found, request)

    async def update(request: web.Request, owner: str) -> dict[str, Any]:
        completion, body = kept(request, owner), await json_body(request)
        metadata = body.get("metadata") if isinstance(body, dict) else None
        if metadata is None:
            raise missing("metadata")
        check_metadata(metadata)
        state.unmark(owner, completion)
        completion["metadata"] = metadata
        state.mark(owner, completion)
        state.keep(sandbox, owner, completion)
        return completion

    async def delete(request: web.Request, owner: str) -> dict[str, Any]:
        completion = kept(request, owner)
        state.unmark(owner, completion)
        del state.stored[owner][completion["id"]]
        sandbox.forget(COMPLETION, completion["id"])
        return {"object": "chat.completion.deleted", "id": completion["id"], "deleted": True}

    async def models(_: web.Request, __: str) -> dict[str, Any]:
        return {"object": "list", "data": [model.described() for model in offered(sandbox.now())]}

    async def model(request: web.Request, _: str) -> dict[str, Any]:
        wanted = MODELS.get(request.match_info["id"])
        return model_named(request.match_info["id"], sandbox.now(), kind=wanted.kind if wanted else "chat").described()

    endpoint = gate(sandbox)
    chats = f"{PREFIX}/chat/completions"
    ours = [
        web.post(chats, endpoint(chat), name="openai.chat"),
        web.get(chats, endpoint(list_stored), name="openai.list"),
        web.get(f"{chats}/{{id}}", endpoint(retrieve), name="openai.retrieve"),
        web.post(f"{chats}/{{id}}", endpoint(update), name="openai.update"),
        web.delete(f"{chats}/{{id}}", endpoint(delete), name="openai.delete"),
        web.get(f"{chats}/{{id}}/messages", endpoint(messages), name="openai.messages"),
        web.get(f"{PREFIX}/models", endpoint(models), name="openai.models"),
        web.get(f"{PREFIX}/models/{{id}}", endpoint(model), name="openai.model"),
    ]
    ours += openai_speech.routes(sandbox, endpoint)
    ours += openai_responses.routes(sandbox, endpoint, lambda owner, body: _complete(sandbox, state, owner, body))
    return [*ours, *dead_ends(ours)]


async def stream(request: web.Request, completion: dict[str, Any], body: dict[str, Any]) -> web.StreamResponse:
    """Stream the completion as server-sent events, a few words at a time. The last event is `[DONE]`."""
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
    await answer.prepare(request)
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    kept = ("id", "created", "model", "service_tier", "system_fingerprint")
    head = {"object": "chat.completion.chunk", **{name: completion[name] for name in kept}}

    async def send(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
        chunk = {**head, "choices": choices, **({"usage": usage} if wants_usage else {})}
        await answer.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())

    for choice in completion["choices"]:
        place, message = {"index": choice["index"], "logprobs": None}, choice["message"]
        await send([{**place, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for name in ("refusal", "content"):
            for piece in re.findall(r"\S+\s*|\s+", message[name] or ""):
                await send([{**place, "delta": {name: piece}, "finish_reason": None}])
        await send([{**place, "delta": {}, "finish_reason": choice["finish_reason"]}])
    if wants_usage:
        await send([], completion["usage"])
    await answer.write(b"data: [DONE]\n\n")
    await answer.write_eof()
    return answer


def _complete(sandbox: Sandbox, state: _State, owner: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make the completion and bill it."""
    prompt = digest(sandbox.seed, owner, body["model"], json.dumps(body["messages"], sort_keys=True))
    take = state.takes.get(prompt, 0)
    brief = _brief(body["messages"])
    outcome = _outcome(sandbox)

    scripts = [compose(brief, seed=f"{prompt}/{take}/{i}") for i in range(body.get("n") or 1)]
    texts = [_text(script, body.get("response_format")) for script in scripts]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    choices = [] if outcome == "empty" else [_choice(i, text, outcome, limit) for i, text in enumerate(texts)]
    completion: dict[str, Any] = {
        "id": f"chatcmpl-{digest(prompt, take)[:29]}",
        "object": "chat.completion",
        "created": int(sandbox.now()),
        "model": body["model"],
        "choices": choices,
        "usage": _usage(body, choices),
        "service_tier": "default",
        "system_fingerprint": f"fp_{digest(sandbox.seed)[:10]}",
    }
    metadata = body.get("metadata") or {}
    state.takes[prompt] = take + 1
    sandbox.keep("openai.take", prompt, take + 1)
    if body.get("store"):
        completion["metadata"] = metadata
        state.stored.setdefault(owner, {})[completion["id"]] = completion
        state.asked[completion["id"]] = body["messages"]
        state.mark(owner, completion)
        state.keep(sandbox, owner, completion)
    title = brief.get("title") if isinstance(brief.get("title"), str) else scripts[0]["title"]
    # The account, without the key.
    account = digest(owner)[:12]
    sandbox.record("script", id=completion["id"], title=title, marker=metadata.get("attempt"), model=body["model"], account=account)
    return completion


def _choice(index: int, text: str, outcome: str, limit: int | None) -> dict[str, Any]:
    reason, content, refusal = "stop", text, ""
    if outcome == "refusal":
        content, refusal = "", "I'm sorry, but I can't help with that request."
    elif outcome == "content_filter":
        reason, content = "content_filter", ""
    elif outcome == "prose":
        content = f"Sure! Here is your script:\n\n```json\n{text}\n```\nLet me know if {{anything}} should change."
    elif outcome == "thinking":
        content = f'<think>The user wants {{"hook": "a draft"}}, perhaps.</think>\n{text}'
    elif outcome == "nonsense":
        content = "I have thought about it and would rather talk about the weather."
    elif outcome in ("links", "long"):
        content = _spoilt(text, outcome)
    elif outcome == "length" or (limit is not None and tokens(text) > limit):
        reason, content = "length", text[: 4 * min(limit or 10**9, tokens(text) // 2)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refusal else content,
        "refusal": refusal or None,
        "annotations": [],
    }
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _spoilt(text: str, outcome: str) -> str:
    """A script as models spoil it: only web addresses on screen, or texts beyond every limit. Other objects stay unchanged."""
    script = json.loads(text)
    if not {"scenes", "title"} <= set(script):
        return text
    if outcome == "links":
        script["scenes"] = [{**scene, "on_screen_text": "https://example.org/a"} for scene in script["scenes"]]
        return json.dumps(script)
    script["title"] = " ".join([script["title"]] * 20)
    script["caption"] = " ".join([script["caption"]] * 60)
    script["scenes"] = [{**scene, "on_screen_text": " ".join([scene["on_screen_text"]] * 20)} for scene in script["scenes"]]
    return json.dumps(script)


def _usage(body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    wanted = json.dumps(body.get("response_format") or "")
    prompt = 3 + sum(4 + tokens(said(message)) for message in body["messages"]) + tokens(wanted)
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
        raise OpenAiApiError(400, str(error), param="response_format", code="sandbox_unsupported_schema") from error
    return json.dumps(value, ensure_ascii=False)


def _brief(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last JSON object in the last user message that has one. Without any, the user's text is the title."""
    words = [said(message) for message in messages if message["role"] == "user"]
    decoder = json.JSONDecoder()
    for text in reversed(words):
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
    return {"title": " ".join(words)[:200]}


def page_of(found: list[dict[str, Any]], request: web.Request) -> dict[str, Any]:
    query = request.query
    if "model" in query:
        found = [c for c in found if c.get("model") == query["model"]]
    order, limit = query.get("order", "asc"), query.get("limit", "20")
    if order not in ("asc", "desc"):
        text = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
        raise OpenAiApiError(400, text, param="order", code="invalid_value")
    if not limit.isdigit() or not 1 <= int(limit) <= 100:
        raise OpenAiApiError(400, f"Invalid 'limit': expected an integer between 1 and 100, but got {limit}.", param="limit")
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

"""The stand-in for OpenAI's Responses API: create, retrieve, cancel, delete, input items; also in the background.

Settings (`POST /_sandbox/config`): `openai.background_seconds`: how long a background response takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.openai.gate import PREFIX, Endpoint, OpenAiApiError, digest, json_body, missing, wrong_type
from phantoms_dagster.sandbox.openai.request import check

Complete = Callable[[str, dict[str, Any]], dict[str, Any]]

# Parameters that chat completions have under the same name, and those that only this API has.
_SHARED = (
    "model",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    "temperature",
    "top_p",
    "user",
    "moderation",
)
_OWN = frozenset(
    {
        "background", "background_options", "conversation", "include", "input", "instructions", "max_output_tokens",
        "max_tool_calls", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_retention", "reasoning", "store",
        "stream", "stream_options", "text", "tool_choice", "tools", "top_logprobs", "truncation",
    }
)  # fmt: skip
_NOT_HERE = ("stream", "tools", "conversation", "previous_response_id", "prompt")
KIND = "openai.response"  # the kind of its rows in the sandbox's store
_ENDED = ("completed", "incomplete", "failed", "cancelled")


def routes(sandbox: Sandbox, endpoint: Endpoint, complete: Complete) -> list[web.RouteDef]:
    """Routes `openai.respond`, `.response`, `.cancel`, `.forget` and `.input_items`. `complete` makes a billed chat completion."""
    rows = dict(sandbox.kept_rows(KIND))
    kept: dict[tuple[str, str], dict[str, Any]] = {(row["owner"], number): row["response"] for number, row in rows.items()}
    asked: dict[str, list[dict[str, Any]]] = {number: row["asked"] for number, row in rows.items()}
    done: dict[str, tuple[float, dict[str, Any]]] = {n: (row["done"][0], row["done"][1]) for n, row in rows.items() if row["done"]}

    def keep(owner: str, response: dict[str, Any]) -> None:
        number = response["id"]
        row = {"owner": owner, "response": response, "asked": asked[number], "done": done.get(number)}
        sandbox.keep(KIND, number, row)

    def current(owner: str, wanted: str) -> dict[str, Any]:
        """The response's present state. A background response progresses with the sandbox's clock."""
        response = kept.get((owner, wanted))
        if response is None:
            raise OpenAiApiError(404, f"Response with id '{wanted}' not found.", param="response_id")
        if response["status"] not in _ENDED:
            at, ended = done[wanted]
            response.update(ended if sandbox.now() >= at else {"status": "in_progress"})
        return response

    async def respond(request: web.Request, owner: str) -> dict[str, Any]:
        body = await json_body(request)
        chat = _as_chat(body)
        check({**chat, **({"store": True} if "metadata" in chat else {})}, now=sandbox.now())
        in_background = bool(body.get("background"))
        if in_background and body.get("store") is False:
            raise OpenAiApiError(400, "Background responses need 'store' to be true.", param="store", code="invalid_value")
        completion = complete(owner, {**chat, "store": False})
        response = _response(body, completion, created=int(sandbox.now()))
        if in_background:
            done[response["id"]] = (sandbox.now() + float(sandbox.setting("openai.background_seconds", 1.0)), dict(response))
            response.update(status="queued", output=[], usage=None)
        if body.get("store") is not False:
            kept[owner, response["id"]] = response
            asked[response["id"]] = _items(body["input"], response["id"])
            keep(owner, response)
        return response

    async def retrieve(request: web.Request, owner: str) -> dict[str, Any]:
        return current(owner, request.match_info["id"])

    async def cancel(request: web.Request, owner: str) -> dict[str, Any]:
        response = current(owner, request.match_info["id"])
        if not response["background"]:
            raise OpenAiApiError(400, "Only responses created with 'background' can be cancelled.", param="response_id")
        if response["status"] not in _ENDED:
            response["status"] = "cancelled"
            keep(owner, response)
        return response

    async def forget(request: web.Request, owner: str) -> dict[str, Any]:
        response = current(owner, request.match_info["id"])
        del kept[owner, response["id"]]
        sandbox.forget(KIND, response["id"])
        return {"id": response["id"], "object": "response", "deleted": True}

    async def input_items(request: web.Request, owner: str) -> dict[str, Any]:
        items = asked[current(owner, request.match_info["id"])["id"]]
        ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
        return {"object": "list", "data": items, **ends, "has_more": False}

    one = f"{PREFIX}/responses/{{id}}"
    return [
        web.post(f"{PREFIX}/responses", endpoint(respond), name="openai.respond"),
        web.get(one, endpoint(retrieve), name="openai.response"),
        web.delete(one, endpoint(forget), name="openai.forget"),
        web.post(f"{one}/cancel", endpoint(cancel), name="openai.cancel"),
        web.get(f"{one}/input_items", endpoint(input_items), name="openai.input_items"),
    ]


def _as_chat(body: Any) -> dict[str, Any]:
    """The equivalent request for a chat completion. Raises OpenAiApiError."""
    if not isinstance(body, dict):
        raise OpenAiApiError(400, "We could not parse the JSON body of your request. The API expects a JSON payload.")
    if unknown := sorted(set(body) - _OWN - set(_SHARED)):
        raise OpenAiApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
    for name in _NOT_HERE:
        if body.get(name):
            raise OpenAiApiError(
                400, f"Unsupported parameter: the sandbox has no '{name}'.", param=name, code="unsupported_parameter"
            )
    given = body.get("input")
    if given is None:
        raise missing("input")
    if not isinstance(given, str | list):
        raise wrong_type("input", "one of a string or array of objects", given)
    for name in ("background", "store"):
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise wrong_type(name, "a boolean", body[name])
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if isinstance(body.get("instructions"), str):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]
    chat: dict[str, Any] = {name: body[name] for name in _SHARED if body.get(name) is not None}
    chat["messages"] = messages
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if isinstance(reasoning := body.get("reasoning"), dict) and reasoning.get("effort"):
        chat["reasoning_effort"] = reasoning["effort"]
    wanted = (body.get("text") or {}).get("format")
    if isinstance(wanted, dict):
        spec = {name: value for name, value in wanted.items() if name != "type"}
        chat["response_format"] = {
            "type": wanted.get("type"),
            **({"json_schema": spec} if wanted.get("type") == "json_schema" else {}),
        }
    return chat


def _response(body: dict[str, Any], completion: dict[str, Any], *, created: int) -> dict[str, Any]:
    number = digest(completion["id"], created)[:48]
    nothing: dict[str, Any] = {"message": {}, "finish_reason": "stop"}
    choice: dict[str, Any] = completion["choices"][0] if completion["choices"] else nothing
    message, reason = choice["message"], choice["finish_reason"]
    cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reason)
    content = [{"type": "output_text", "text": message["content"], "annotations": []}] if message.get("content") else []
    if message.get("refusal"):
        content = [{"type": "refusal", "refusal": message["refusal"]}]
    status = "incomplete" if cut else "completed"
    usage = completion["usage"]
    item = {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": status, "content": content}
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": created,
        "status": status,
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": completion["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": None},
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def _items(given: str | list[dict[str, Any]], response: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    items = []
    for number, message in enumerate(messages):
        content = message.get("content")
        parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
        items.append(
            {"id": f"msg_{digest(response, number)[:48]}", "type": "message", "status": "completed", **message, "content": parts}
        )
    return items

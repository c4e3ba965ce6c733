"""What the chat completions API refuses, in its own words: keys, parameters, messages, response formats.

What is answered to a good request belongs in `sandbox.openai`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from phantoms_dagster.sandbox.openai_schema import SchemaRefused, check_strict

# Shut down on 2026-10-23, according to the provider's table of deprecations.
RETIRED_MODELS = ("gpt-3.5-turbo", "gpt-4", "gpt-4-turbo", "o1", "o4-mini")
ROLES = ("developer", "system", "user", "assistant", "tool", "function")
PARAMETERS = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "messages", "metadata", "modalities", "model", "moderation", "n", "parallel_tool_calls", "prediction",
        "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
        "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options",
        "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
    }
)  # fmt: skip
_REASONING = re.compile(r"^(?:gpt-5|o\d)")


class ApiError(Exception):
    """An answer that is not 200: the parts of the API's error body."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def account(authorization: str | None) -> str:
    """Whose key it is: what follows `sandbox` in `Bearer sandbox-name`. Any other key is refused with 401."""
    key = (authorization or "").removeprefix("Bearer ").strip()
    if not key or not (authorization or "").startswith("Bearer "):
        raise ApiError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
            "(i.e. Authorization: Bearer YOUR_KEY).",
        )
    if not key.startswith("sandbox"):
        shown = f"{key[:4]}***{key[-4:]}" if len(key) > 12 else "***"
        raise ApiError(401, f"Incorrect API key provided: {shown}. The sandbox takes keys like sandbox-me.", code="invalid_api_key")
    return key.removeprefix("sandbox").removeprefix("-") or "default"


def check(body: Any) -> None:
    """Raise ApiError (400, or 404 for the model) for what the API would not take."""
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request. The API expects a JSON payload.")
    if unknown := sorted(set(body) - PARAMETERS):
        raise ApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
    _check_model(body)
    _check_messages(body)
    _check_numbers(body)
    _check_storage(body)
    _check_format(body)
    for name in ("stream", "tools", "functions", "audio"):
        if body.get(name):
            raise ApiError(400, f"Unsupported parameter: the sandbox has no '{name}'.", param=name, code="unsupported_parameter")


def _check_model(body: Mapping[str, Any]) -> None:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "you must provide a model parameter")
    if model in RETIRED_MODELS:
        raise ApiError(404, f"The model `{model}` has been deprecated and was shut down.", code="model_not_found")


def _check_messages(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if messages is None:
        raise ApiError(400, "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise ApiError(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise _wrong_type(where, "an object", message)
        if message.get("role") not in ROLES:
            supported = ", ".join(f"'{role}'" for role in ROLES)
            text = f"Invalid value: '{message.get('role')}'. Supported values are: {supported}."
            raise ApiError(400, text, param=f"{where}.role", code="invalid_value")
        content = message.get("content")
        if content is None and message["role"] != "assistant":
            raise ApiError(400, f"Invalid value for 'content': expected a string, got null. ({where})", param=f"{where}.content")
        if content is not None and not isinstance(content, str | list):
            raise _wrong_type(f"{where}.content", "one of a string or array of objects", content)


def _check_numbers(body: Mapping[str, Any]) -> None:
    model = str(body["model"])
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("presence_penalty", -2, 2), ("frequency_penalty", -2, 2)):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(name, "a decimal", value)
        if not low <= value <= high:
            side, bound = ("minimum", low) if value < low else ("maximum", high)
            text = f"Invalid '{name}': decimal {'below' if value < low else 'above'} {side} value. Expected a value "
            text += f"{'>=' if value < low else '<='} {bound}, but got {value} instead."
            raise ApiError(400, text, param=name, code=f"decimal_{'below_min' if value < low else 'above_max'}_value")
        if name == "temperature" and value != 1 and _REASONING.match(model):
            text = f"Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) value is "
            text += "supported."
            raise ApiError(400, text, param=name, code="unsupported_value")
    if body.get("max_tokens") is not None and _REASONING.match(model):
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        raise ApiError(400, text, param="max_tokens", code="unsupported_parameter")
    for name, high in (("max_completion_tokens", 1_000_000), ("max_tokens", 1_000_000), ("n", 128)):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(name, "an integer", value)
        if not 1 <= value <= high:
            text = f"Invalid '{name}': integer out of range. Expected a value between 1 and {high}, but got {value} instead."
            raise ApiError(400, text, param=name, code="integer_below_min_value" if value < 1 else "integer_above_max_value")


def _check_storage(body: Mapping[str, Any]) -> None:
    store, metadata = body.get("store"), body.get("metadata")
    if store is not None and not isinstance(store, bool):
        raise _wrong_type("store", "a boolean", store)
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise _wrong_type("metadata", "an object", metadata)
    if not store:
        # Met by many callers: https://github.com/QwenLM/qwen-code/issues/243
        raise ApiError(400, "The 'metadata' parameter is only allowed when 'store' is enabled.", param="metadata")
    if len(metadata) > 16:
        text = f"Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got {len(metadata)}."
        raise ApiError(400, text, param="metadata", code="object_above_max_properties")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise _wrong_type(f"metadata.{key}", "a string", value)
        if len(key) > 64 or len(value) > 512:
            text = f"Invalid 'metadata.{key[:64]}': keys have at most 64 characters and values at most 512."
            raise ApiError(400, text, param="metadata", code="string_above_max_length")


def _check_format(body: Mapping[str, Any]) -> None:
    wanted = body.get("response_format")
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        text = f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        raise ApiError(400, text, param="response_format.type", code="invalid_value")
    if kind == "json_object" and "json" not in str(body["messages"]).casefold():
        text = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        raise ApiError(400, text, param="messages")
    if kind != "json_schema":
        return
    where = "response_format.json_schema"
    spec = wanted.get("json_schema")
    if not isinstance(spec, dict):
        raise ApiError(400, f"Missing required parameter: '{where}'.", param=where, code="missing_required_parameter")
    name, schema = spec.get("name"), spec.get("schema")
    if name is None or (schema is None and spec.get("strict")):
        missing = f"{where}.{'name' if name is None else 'schema'}"
        raise ApiError(400, f"Missing required parameter: '{missing}'.", param=missing, code="missing_required_parameter")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        text = f"Invalid '{where}.name': string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'."
        raise ApiError(400, text, param=f"{where}.name", code="invalid_value")
    if schema is not None and not isinstance(schema, dict):
        raise _wrong_type(f"{where}.schema", "an object", schema)
    if spec.get("strict"):
        try:
            check_strict(schema or {})
        except SchemaRefused as error:
            raise ApiError(400, f"Invalid schema for response_format '{name}': {error}", param="response_format") from error


def _wrong_type(param: str, expected: str, value: object) -> ApiError:
    got = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer", float: "a decimal"}
    text = f"Invalid type for '{param}': expected {expected}, but got {got.get(type(value), 'null')} instead."
    return ApiError(400, text, param=param, code="invalid_type")

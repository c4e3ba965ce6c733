"""The chat completions API's checks of a request, with its own error messages: parameters, messages, response formats.

`routes` answers valid requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from phantoms_dagster.sandbox.openai.gate import OpenAiApiError, missing, wrong_type
from phantoms_dagster.sandbox.openai.models import SandboxModel, model_named
from phantoms_dagster.sandbox.openai.schema import SchemaRefused, check_strict
from phantoms_dagster.sandbox.openai.writer import tokens

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
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_CHOICES = {
    "reasoning_effort": _EFFORTS,
    "verbosity": ("low", "medium", "high"),
    "service_tier": ("auto", "default", "flex", "scale", "priority", "fast"),
}
# The types of the parameters that have no own check.
_KINDS: Mapping[str, tuple[str, type | tuple[type, ...]]] = {
    "seed": ("an integer", int),
    "top_logprobs": ("an integer", int),
    "stop": ("one of a string or array of strings", (str, list)),
    "user": ("a string", str),
    "safety_identifier": ("a string", str),
    "prompt_cache_key": ("a string", str),
    "logprobs": ("a boolean", bool),
    "parallel_tool_calls": ("a boolean", bool),
    "stream": ("a boolean", bool),
    "stream_options": ("an object", dict),
    "logit_bias": ("an object", dict),
    "moderation": ("an object", dict),
    "modalities": ("an array of strings", list),
    "tools": ("an array of objects", list),
    "functions": ("an array of objects", list),
}
MAX_CONTENT_CHARACTERS = 10_485_760


def check(body: Any, *, now: float, context: int | None = None) -> None:
    """Raise OpenAiApiError (400, or 404 for the model) for an invalid request. `context`: tokens, instead of the model's own."""
    if not isinstance(body, dict):
        raise OpenAiApiError(400, "We could not parse the JSON body of your request. The API expects a JSON payload.")
    if unknown := sorted(set(body) - PARAMETERS):
        raise OpenAiApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise OpenAiApiError(400, "you must provide a model parameter")
    _check_messages(body)
    model = model_named(body["model"], now)
    _check_kinds(body, model)
    _check_numbers(body, model)
    _check_storage(body)
    _check_format(body)
    for name in ("tools", "functions", "audio"):
        if body.get(name):
            raise OpenAiApiError(
                400, f"Unsupported parameter: the sandbox has no '{name}'.", param=name, code="unsupported_parameter"
            )
    check_context(sum(4 + tokens(said(message)) for message in body["messages"]), context or model.context)


def check_context(prompt: int, context: int, *, param: str = "messages") -> None:
    """Raise OpenAiApiError when a prompt of `prompt` tokens does not fit the context."""
    if prompt > context:
        text = f"This model's maximum context length is {context} tokens. However, your {param} resulted in {prompt} tokens. "
        text += f"Please reduce the length of the {param}."
        raise OpenAiApiError(400, text, param=param, code="context_length_exceeded")


def said(message: Mapping[str, Any]) -> str:
    """The text of a message."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    kinds = ("text", "input_text", "output_text")
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict) and part.get("type") in kinds)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise OpenAiApiError unless the value is one of the choices."""
    if not isinstance(value, str):
        raise wrong_type(name, f"one of {', '.join(repr(choice) for choice in choices)}", value)
    if value not in choices:
        supported = ", ".join(f"'{choice}'" for choice in choices)
        raise OpenAiApiError(400, f"Invalid value: '{value}'. Supported values are: {supported}.", param=name, code="invalid_value")


def _check_kinds(body: Mapping[str, Any], model: SandboxModel) -> None:
    for name, (expected, kind) in _KINDS.items():
        value = body.get(name)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise wrong_type(name, expected, value)
    for name, choices in _CHOICES.items():
        if body.get(name) is not None:
            check_choice(name, body[name], choices)
    if body.get("reasoning_effort") is not None and not model.reasons:
        text = "Unsupported parameter: 'reasoning_effort' is not supported with this model."
        raise OpenAiApiError(400, text, param="reasoning_effort", code="unsupported_parameter")
    if body.get("stream_options") is not None and not body.get("stream"):
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise OpenAiApiError(400, text, param="stream_options")


def _check_messages(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise OpenAiApiError(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        if message.get("role") not in ROLES:
            supported = ", ".join(f"'{role}'" for role in ROLES)
            text = f"Invalid value: '{message.get('role')}'. Supported values are: {supported}."
            raise OpenAiApiError(400, text, param=f"{where}.role", code="invalid_value")
        content = message.get("content")
        if content is None and message["role"] != "assistant":
            raise OpenAiApiError(
                400, f"Invalid value for 'content': expected a string, got null. ({where})", param=f"{where}.content"
            )
        if content is not None and not isinstance(content, str | list):
            raise wrong_type(f"{where}.content", "one of a string or array of objects", content)
        if isinstance(content, str) and len(content) > MAX_CONTENT_CHARACTERS:
            text = f"Invalid '{where}.content': string too long. Expected a string with maximum length {MAX_CONTENT_CHARACTERS}, "
            text += f"but got a string with length {len(content)} instead."
            raise OpenAiApiError(400, text, param=f"{where}.content", code="string_above_max_length")


def _check_numbers(body: Mapping[str, Any], model: SandboxModel) -> None:
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("presence_penalty", -2, 2), ("frequency_penalty", -2, 2)):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(name, "a decimal", value)
        if not low <= value <= high:
            side, bound = ("minimum", low) if value < low else ("maximum", high)
            text = f"Invalid '{name}': decimal {'below' if value < low else 'above'} {side} value. Expected a value "
            text += f"{'>=' if value < low else '<='} {bound}, but got {value} instead."
            raise OpenAiApiError(400, text, param=name, code=f"decimal_{'below_min' if value < low else 'above_max'}_value")
        if name == "temperature" and value != 1 and model.reasons:
            text = f"Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) value is "
            text += "supported."
            raise OpenAiApiError(400, text, param=name, code="unsupported_value")
    if body.get("max_tokens") is not None and model.reasons:
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        raise OpenAiApiError(400, text, param="max_tokens", code="unsupported_parameter")
    for name, high in (("max_completion_tokens", 1_000_000), ("max_tokens", 1_000_000), ("n", 128)):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer", value)
        if not 1 <= value <= high:
            text = f"Invalid '{name}': integer out of range. Expected a value between 1 and {high}, but got {value} instead."
            raise OpenAiApiError(400, text, param=name, code="integer_below_min_value" if value < 1 else "integer_above_max_value")
        if name != "n" and value > model.output:
            text = f"max_tokens is too large: {value}. This model supports at most {model.output} completion tokens, whereas you "
            text += f"provided {value}."
            raise OpenAiApiError(400, text, param=name, code="invalid_value")


def check_metadata(metadata: Any) -> None:
    """Raise OpenAiApiError for metadata that the API would not store."""
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > 16:
        text = f"Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got {len(metadata)}."
        raise OpenAiApiError(400, text, param="metadata", code="object_above_max_properties")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{key}", "a string", value)
        if len(key) > 64 or len(value) > 512:
            text = f"Invalid 'metadata.{key[:64]}': keys have at most 64 characters and values at most 512."
            raise OpenAiApiError(400, text, param="metadata", code="string_above_max_length")


def _check_storage(body: Mapping[str, Any]) -> None:
    store, metadata = body.get("store"), body.get("metadata")
    if store is not None and not isinstance(store, bool):
        raise wrong_type("store", "a boolean", store)
    if metadata is None:
        return
    if not store:
        # Many clients run into this: https://github.com/QwenLM/qwen-code/issues/243
        raise OpenAiApiError(400, "The 'metadata' parameter is only allowed when 'store' is enabled.", param="metadata")
    check_metadata(metadata)


def _check_format(body: Mapping[str, Any]) -> None:
    wanted = body.get("response_format")
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        text = f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        raise OpenAiApiError(400, text, param="response_format.type", code="invalid_value")
    if kind == "json_object" and "json" not in str(body["messages"]).casefold():
        text = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        raise OpenAiApiError(400, text, param="messages")
    if kind != "json_schema":
        return
    where = "response_format.json_schema"
    spec = wanted.get("json_schema")
    if not isinstance(spec, dict):
        raise missing(where)
    name, schema = spec.get("name"), spec.get("schema")
    if name is None or (schema is None and spec.get("strict")):
        raise missing(f"{where}.{'name' if name is None else 'schema'}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        text = f"Invalid '{where}.name': string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'."
        raise OpenAiApiError(400, text, param=f"{where}.name", code="invalid_value")
    if schema is not None and not isinstance(schema, dict):
        raise wrong_type(f"{where}.schema", "an object", schema)
    if spec.get("strict"):
        try:
            check_strict(schema or {})
        except SchemaRefused as error:
            raise OpenAiApiError(400, f"Invalid schema for response_format '{name}': {error}", param="response_format") from error

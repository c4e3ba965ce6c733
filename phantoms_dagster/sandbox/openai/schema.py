"""The strict subset of JSON Schema that structured outputs accept, and the creation of values that conform to such a schema."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

JsonSchema = Mapping[str, Any]
Path = tuple[str, ...]

MAX_PROPERTIES = 5_000
MAX_LEVELS = 10
MAX_DEPTH = 50
MAX_CHARACTERS = 120_000
MAX_ENUM_VALUES = 1_000
LONG_ENUM, MAX_LONG_ENUM_CHARACTERS = 250, 15_000
# A client sends the same schema with each request, and checking one takes twenty times as long as the rest of the request.
SCHEMAS_KEPT = 32

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_ANYWHERE = frozenset({"type", "title", "description", "enum", "const", "anyOf", "$ref", "$defs", "definitions"})
_BY_TYPE: Mapping[str, frozenset[str]] = {
    "string": frozenset({"pattern", "format"}),
    "number": frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "integer": frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}


class SchemaRefused(ValueError):
    """The schema is outside the strict subset. The message is worded like the API's."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"In context={path!r}, {reason}")


def check_strict(schema: JsonSchema) -> None:
    """Raise SchemaRefused when strict structured outputs would not accept the schema."""
    _check_strict(json.dumps(schema))


@functools.lru_cache(SCHEMAS_KEPT)
def _check_strict(text: str) -> None:
    schema = json.loads(text)
    if schema.get("type") != "object" or "anyOf" in schema:
        raise SchemaRefused((), "schema must be a JSON Schema of 'type: \"object\"' and not use 'anyOf' at the root.")
    properties = enum_values = characters = 0
    for path, level, node in _nodes(schema, (), 1):
        if level > MAX_LEVELS:
            raise SchemaRefused(path, f"schema exceeds {MAX_LEVELS} levels of nesting.")
        _check_node(path, node)
        names = list(node.get("properties", {})) + list(node.get("$defs", {}))
        enum = list(node.get("enum", [])) + ([node["const"]] if "const" in node else [])
        properties += len(node.get("properties", {}))
        enum_values += len(enum)
        sizes = [len(value) for value in enum if isinstance(value, str)]
        if len(sizes) > LONG_ENUM and sum(sizes) > MAX_LONG_ENUM_CHARACTERS:
            raise SchemaRefused(path, f"an enum of more than {LONG_ENUM} strings exceeds {MAX_LONG_ENUM_CHARACTERS} characters.")
        characters += sum(map(len, names)) + sum(sizes)
    for count, limit, what in (
        (properties, MAX_PROPERTIES, "object properties"),
        (enum_values, MAX_ENUM_VALUES, "enum values"),
        (characters, MAX_CHARACTERS, "characters of names and enum values"),
    ):
        if count > limit:
            raise SchemaRefused((), f"schema exceeds {limit} {what}.")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise SchemaRefused(tuple(map(str, error.absolute_path)), error.message) from error


def _check_node(path: Path, node: JsonSchema) -> None:
    kinds = _kinds(node)
    if not kinds and not {"anyOf", "$ref", "enum", "const"} & set(node):
        raise SchemaRefused(path, "schema must have a 'type' key.")
    if unknown := sorted(kinds - _TYPES):
        raise SchemaRefused(path, f"{unknown[0]!r} is not a valid type.")
    permitted = _ANYWHERE.union(*(_BY_TYPE.get(kind, frozenset()) for kind in kinds))
    if foreign := sorted(set(node) - permitted):
        raise SchemaRefused(path, f"{foreign[0]!r} is not permitted.")
    if "array" in kinds and not isinstance(node.get("items"), Mapping):
        raise SchemaRefused(path, "array schema missing items.")
    if "object" in kinds:
        if node.get("additionalProperties") is not False:
            raise SchemaRefused(path, "'additionalProperties' is required to be supplied and to be false.")
        names, required = node.get("properties", {}), node.get("required", [])
        if missing := [name for name in names if name not in required]:
            raise SchemaRefused(
                path,
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing {missing[0]!r}.",
            )
        if extra := [name for name in required if name not in names]:
            raise SchemaRefused(path, f"'required' names {extra[0]!r}, which is not in properties.")


def _nodes(node: JsonSchema, path: Path, level: int) -> Iterator[tuple[Path, int, JsonSchema]]:
    """Every subschema, with its path and its nesting depth in objects and arrays."""
    yield path, level, node
    if level > MAX_LEVELS:
        return
    for key in ("properties", "$defs", "definitions"):
        children = node.get(key, {})
        for name, child in children.items() if isinstance(children, Mapping) else ():
            if not isinstance(child, Mapping):
                raise SchemaRefused((*path, key, name), "schema must be an object.")
            yield from _nodes(child, (*path, key, name), level + (key == "properties"))
    if isinstance(node.get("items"), Mapping):
        yield from _nodes(node["items"], (*path, "items"), level + 1)
    options = node.get("anyOf", [])
    for i, child in enumerate(options if isinstance(options, list) else []):
        yield from _nodes(child, (*path, "anyOf", str(i)), level)


def conforming(schema: JsonSchema, draft: Mapping[str, Any]) -> Any:
    """A value that conforms to the schema and keeps as much of the draft as possible, by property name.

    Raises SchemaRefused for a schema that needs a real model, for example one with a pattern.
    """
    validator = _validator(json.dumps(schema))
    if validator.is_valid(draft):
        return draft
    value = _fill(schema, schema, draft, 0)
    for error in validator.iter_errors(value):
        raise SchemaRefused(tuple(map(str, error.absolute_path)), f"the sandbox cannot make up a value: {error.message}")
    return value


@functools.lru_cache(SCHEMAS_KEPT)
def _validator(text: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(text))


def _fill(schema: JsonSchema, root: JsonSchema, draft: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise SchemaRefused((), "the sandbox cannot make up a value of endless depth.")
    if "$ref" in schema:
        return _fill(_resolved(schema["$ref"], root), root, draft, depth + 1)
    if "const" in schema or "enum" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return draft if draft in values else values[0]
    if "anyOf" in schema:
        options = sorted(schema["anyOf"], key=lambda option: (_kinds(option) == {"null"}) != (depth > MAX_LEVELS))
        return _fill(options[0], root, draft, depth + 1)
    kinds = _kinds(schema)
    if "object" in kinds:
        known = draft if isinstance(draft, Mapping) else {}
        return {name: _fill(child, root, known.get(name), depth + 1) for name, child in schema.get("properties", {}).items()}
    if "array" in kinds:
        items = draft if isinstance(draft, list) else [draft]
        length = min(max(len(items), schema.get("minItems", 0)), schema.get("maxItems", len(items) + MAX_PROPERTIES))
        return [_fill(schema.get("items", {}), root, items[i] if i < len(items) else None, depth + 1) for i in range(length)]
    if "string" in kinds:
        return draft if isinstance(draft, str) else "Phantoms sandbox"
    if "boolean" in kinds:
        return draft if isinstance(draft, bool) else False
    if kinds & {"number", "integer"}:
        least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        return draft if isinstance(draft, int | float) and not isinstance(draft, bool) else least
    return None


def _resolved(reference: str, root: JsonSchema) -> JsonSchema:
    node: Any = root
    for part in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        raise SchemaRefused((), f"reference {reference!r} cannot be resolved.")
    return node


def _kinds(schema: JsonSchema) -> set[str]:
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list) else set()

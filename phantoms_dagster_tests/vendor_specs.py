"""The vendors' own descriptions of their APIs, to check requests against.

Google's, Meta's, Bluesky's and OpenAI's come with packages of the group `dev`. If PHANTOMS_TEST_SPECS names a folder with the files
that vendors publish elsewhere, such as `shotstack.edit.schema.json`, tests check those, too. They are not part of this repository.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from facebook_business.adobjects.abstractobject import AbstractObject
from facebook_business.api import FacebookAdsApi
from facebook_business.session import FacebookSession
from googleapiclient.discovery_cache import get_static_doc
from jsonschema import Draft202012Validator

FOLDER = "PHANTOMS_TEST_SPECS"


def published(name: str) -> dict[str, Any] | None:
    """The vendor's file with that name; None if no folder with it is named."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return None
    found: dict[str, Any] = json.loads((Path(folder) / name).read_text())
    return found


def errors(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What is wrong with the value by this JSON Schema."""
    return [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(schema).iter_errors(value)]


# --- Google -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GoogleMethod:
    """One method of a discovery document."""

    document: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.facts["id"])

    def problems(self, query: Mapping[str, str], body: Any = None) -> list[str]:
        """What is wrong with a request: its query and its JSON body."""
        known = {**self.document["parameters"], **self.facts.get("parameters", {})}
        if "mediaUpload" in self.facts:
            known["uploadType"] = {"type": "string", "enum": ["media", "multipart", "resumable"]}
        wrong = [f"{self.id} has no parameter {name}" for name in query if name not in known]
        wrong += [f"{self.id} needs {name}" for name, given in known.items() if given.get("required") and name not in query]
        for name, value in query.items():
            given = known.get(name, {})
            if value not in given.get("enum", [value]):
                wrong.append(f"{name} is {value}")
            if given.get("type") == "boolean" and value not in ("true", "false"):
                wrong.append(f"{name} is {value} and not a boolean")
        if body is not None:
            wrong += errors(self.schema(self.facts["request"]["$ref"]), body)
        return wrong

    def schema(self, name: str) -> dict[str, Any]:
        """The JSON Schema of a resource as this method takes it: fields that it requires are required, and no others exist."""
        definitions = {each: self._converted(given) for each, given in self.document["schemas"].items()}
        return {"$ref": f"#/$defs/{name}", "$defs": definitions}

    def _converted(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if "$ref" in given:
            return {"$ref": f"#/$defs/{given['$ref']}"}
        made: dict[str, Any] = {} if given["type"] == "any" else {"type": given["type"]}
        if "enum" in given:
            made["enum"] = given["enum"]
        if "items" in given:
            made["items"] = self._converted(given["items"])
        if given["type"] == "object":
            fields = given.get("properties", {})
            made["properties"] = {name: self._converted(field) for name, field in fields.items()}
            others = given.get("additionalProperties")
            made["additionalProperties"] = self._converted(others) if others else False
            made["required"] = [
                name for name, field in fields.items() if self.id in field.get("annotations", {}).get("required", ())
            ]
        return made


@cache
def google(name: str, version: str) -> tuple[tuple[str, re.Pattern[str], GoogleMethod], ...]:
    """The methods of one of Google's APIs, with their HTTP methods and paths."""
    document = json.loads(get_static_doc(name, version))

    def methods(resources: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        for resource in resources.values():
            yield from resource.get("methods", {}).values()
            yield from methods(resource.get("resources", {}))

    found: list[tuple[str, re.Pattern[str], GoogleMethod]] = []
    for facts in methods(document["resources"]):
        protocols = facts.get("mediaUpload", {}).get("protocols", {})
        for path in [f"/{facts['path']}", *(protocol["path"] for protocol in protocols.values())]:
            pattern = re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))
            found.append((facts["httpMethod"], pattern, GoogleMethod(document, facts)))
    return tuple(found)


def google_method(http_method: str, path: str, *, name: str = "youtube", version: str = "v3") -> GoogleMethod:
    """The method that a request calls. Raises LookupError when the API has none."""
    for verb, pattern, method in google(name, version):
        if verb == http_method and pattern.fullmatch(path):
            return method
    raise LookupError(f"{name} has no {http_method} {path}")


# --- Meta -------------------------------------------------------------------------------------------------------------


def meta_parameters(node: type[AbstractObject], method: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The parameters that Meta's client knows for a method: their types, and the values of its enums."""
    api = FacebookAdsApi(FacebookSession("1", None, "none"))
    request = getattr(node("1", api=api), method)(pending=True)
    checker = request._param_checker
    enums = {name: {str(value) for value in values} for name, values in checker._enum_data.items()}
    return dict(checker._type_check_info), enums


def meta_problem(kind: str, text: str) -> str | None:
    """What is wrong with the text of a form field that has this type in Meta's client."""
    if kind == "bool":
        return None if text in ("true", "false") else f"{text} is not a boolean"
    if kind == "unsigned int":
        return None if text.isdecimal() else f"{text} is not a number"
    if kind == "map" or kind.startswith("list"):
        try:
            value = json.loads(text)
        except ValueError:
            return f"{text} is not JSON"
        return None if isinstance(value, dict if kind == "map" else list) else f"{text} is not a {kind}"
    return None

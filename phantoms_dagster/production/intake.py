"""Briefs from files: CSV, JSONL and YAML, row by row. A bad row is named with its line and reason; the good rows are taken.

Pure: bytes in, briefs and refusals out. Which folder is watched and what is stored belongs elsewhere.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import ValidationError

from phantoms_dagster.domain.channels import first_problem
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Brief, Channel, Platform

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".yaml", ".yml")
FIELDS = ("title", "angle", "facts", "channel", "platforms", "publish_at", "priority")
MAX_FILE_BYTES = 64 * 1024 * 1024
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Refusal:
    """A row that was not taken. `line` counts from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Accepted:
    """A row that can be taken, and the line it began on."""

    brief: Brief
    line: int


@dataclass(frozen=True)
class Batch:
    """What a file holds."""

    accepted: Sequence[Accepted]
    refused: Sequence[Refusal]


class _BadRow(Exception):
    pass


def read(name: str, content: bytes, channels: Mapping[str, Channel]) -> Batch:
    """The briefs in a file. `name` tells the format by its suffix and stands in refusals.

    Columns or keys: title (needed), angle, facts (a list, or text separated by `|`), channel (default: the first one),
    platforms (a list, or text separated by commas or spaces; default: all of the channel), publish_at (ISO 8601; without
    a zone it is UTC), priority (0 the highest to 9).
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        return Batch([], [Refusal(name, 1, f"unknown file type {suffix or '(none)'!r}; use {', '.join(SUFFIXES)}")])
    if len(content) > MAX_FILE_BYTES:
        return Batch([], [Refusal(name, 1, f"the file has {len(content):,} bytes; at most {MAX_FILE_BYTES:,} are read")])
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows, ".yaml": _yaml_rows, ".yml": _yaml_rows}
    accepted: list[Accepted] = []
    refused: list[Refusal] = []
    seen: dict[str, int] = {}
    try:
        for line, row in readers[suffix](content):
            try:
                brief = _brief(row, channels)
                earlier = seen.setdefault(brief.fingerprint, line)
                if earlier != line:
                    raise _BadRow(f"the same brief stands on line {earlier} already")
                accepted.append(Accepted(brief, line))
            except _BadRow as bad:
                refused.append(Refusal(name, line, str(bad)))
    except _BadFile as bad:
        refused.append(Refusal(name, bad.line, bad.reason))
    return Batch(accepted, refused)


class _BadFile(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


Row = Mapping[str, Any] | Exception


def _decoded(content: bytes) -> Iterator[tuple[int, str | _BadRow]]:
    """The lines of the file; a line that is not UTF-8 is a bad row, not the end of the file."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True), start=1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, _BadRow(f"not UTF-8 at byte {error.start + 1} of the line; save the file as UTF-8")


def _csv_rows(content: bytes) -> Iterator[tuple[int, Row]]:
    bad: dict[int, _BadRow] = {}
    lines: list[str] = []
    for number, line in _decoded(content):
        if isinstance(line, _BadRow):
            bad[number] = line
        lines.append("\n" if isinstance(line, _BadRow) else line)
    csv.field_size_limit(MAX_FILE_BYTES)
    reader = csv.reader(io.StringIO("".join(lines), newline=""), strict=True)
    header = _header(reader, bad)
    reported: set[int] = set()
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise _BadFile(first, f"the CSV cannot be read from here on: {error}") from error
        broken = [n for n in range(first, reader.line_num + 1) if n in bad]
        reported.update(broken)
        if broken:
            yield broken[0], bad[broken[0]]
        elif any(cell.strip() for cell in cells):
            if len(cells) != len(header):
                yield first, _BadRow(f"{len(cells)} columns where the header has {len(header)}; quote texts that contain commas")
            else:
                yield first, dict(zip(header, cells, strict=True))


def _header(reader: Any, bad: Mapping[int, _BadRow]) -> list[str]:
    try:
        header = [cell.strip().lower() for cell in next(reader)]
    except StopIteration:
        raise _BadFile(1, "the file is empty; its first line should name the columns: " + ",".join(FIELDS)) from None
    except csv.Error as error:
        raise _BadFile(1, f"the CSV cannot be read: {error}") from error
    if 1 in bad:
        raise _BadFile(1, str(bad[1]))
    if "title" not in header:
        raise _BadFile(1, f"column `title` is missing; the header names {', '.join(_short(h) for h in header)}")
    unknown = [h for h in header if h not in FIELDS]
    if unknown:
        raise _BadFile(1, f"unknown column {_short(unknown[0])!r}; the columns are {', '.join(FIELDS)}")
    return header


def _json_rows(content: bytes) -> Iterator[tuple[int, Row]]:
    for number, line in _decoded(content):
        if isinstance(line, _BadRow):
            yield number, line
        elif line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, _BadRow(f"not JSON: {error}")
            else:
                yield number, row if isinstance(row, dict) else _BadRow("each line should be a JSON object")


def _yaml_rows(content: bytes) -> Iterator[tuple[int, Row]]:
    try:
        node = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _BadFile(line, "not UTF-8; save the file as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _BadFile(mark.line + 1 if mark else 1, f"not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1 and node.value[0][0].value == "briefs":
        node = node.value[0][1]
    if not isinstance(node, yaml.SequenceNode):
        raise _BadFile(1, "the file should be a list of briefs")
    for item in node.value:
        line = item.start_mark.line + 1
        try:
            row = _construct(item)
        except yaml.YAMLError as error:
            yield line, _BadRow(f"not valid YAML: {getattr(error, 'problem', None) or error}")
            continue
        yield line, row if isinstance(row, dict) else _BadRow("each brief should be a mapping with a title")


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _brief(row: Row, channels: Mapping[str, Channel]) -> Brief:
    if isinstance(row, _BadRow):
        raise row
    assert isinstance(row, Mapping)
    unknown = [str(key) for key in row if key not in FIELDS]
    if unknown:
        raise _BadRow(f"unknown key {_short(unknown[0])!r}; the keys are {', '.join(FIELDS)}")
    given = {key: value for key, value in row.items() if value not in (None, "", [])}
    try:
        return make_brief(given, channels)
    except InvalidInput as error:
        raise _BadRow(str(error)) from error


def make_brief(given: Mapping[str, Any], channels: Mapping[str, Channel]) -> Brief:
    """A brief of what a person gave, texts and lists alike (see `read`). Raises InvalidInput with the reason."""
    if not isinstance(given.get("title"), str) or not given["title"].strip():
        raise InvalidInput("title is missing")
    name = str(given.get("channel") or next(iter(channels)))
    if name not in channels:
        raise InvalidInput(f"unknown channel {_short(name)!r}; the channels are {', '.join(channels)}")
    channel = channels[name]
    fields: dict[str, Any] = {
        "title": given["title"].strip(),
        "angle": str(given.get("angle") or "").strip(),
        "facts": _listed(given.get("facts"), "|"),
        "channel": name,
        "platforms": _platforms(given.get("platforms"), channel),
        "publish_at": _time(given.get("publish_at")),
    }
    if given.get("priority") is not None:
        fields["priority"] = given["priority"]
    try:
        return Brief.model_validate(fields)
    except ValidationError as error:
        raise InvalidInput(first_problem(error)) from error


def _listed(value: Any, separator: str) -> tuple[str, ...]:
    parts = (
        value.split(separator) if isinstance(value, str) else value if isinstance(value, list) else [] if value is None else [value]
    )
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _platforms(value: Any, channel: Channel) -> tuple[Platform, ...]:
    names = _listed(value.replace(",", " ").replace("|", " "), " ") if isinstance(value, str) else _listed(value, " ")
    if not names:
        return tuple(channel.accounts)
    wanted: list[Platform] = []
    for name in names:
        try:
            platform = Platform(name.lower())
        except ValueError:
            raise InvalidInput(f"unknown platform {_short(name)!r}; the platforms are {', '.join(Platform)}") from None
        if platform not in channel.accounts:
            raise InvalidInput(f"channel {channel.name} has no account on {platform}; add one to channels.yaml")
        if platform not in wanted:
            wanted.append(platform)
    return tuple(wanted)


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise InvalidInput(f"bad date {_short(str(value))!r}; write publish_at like 2026-12-24T18:00+01:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _short(value: str) -> str:
    return value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 1] + "…"

"""Parses briefs from files, row by row. Good rows are accepted. Each bad row is reported with its line and the reason.

`rows` reads the formats, `inbox` watches the folder. This module stores nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import ValidationError

from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.domain.problems import all_problems
from phantoms_dagster.domain.text import unfit
from phantoms_dagster.production.rows import BadRow, BriefRow, as_utf8, csv_rows, json_document_rows, json_rows, yaml_rows
from phantoms_dagster.production.sheets import SUFFIXES as SHEETS
from phantoms_dagster.production.sheets import sheet_rows

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".yaml", ".yml", *SHEETS)
FIELDS = ("title", "angle", "facts", "channel", "platforms", "publish_at", "priority")
MAX_FILE_BYTES = 64 * 1024 * 1024
SHOWN_CHARACTERS = 60
SHOWN_KEYS = 5
REASON_CHARACTERS = 500
# Refuses a mistyped year: `0206` would post at once and `20266` never, and PostgreSQL's range differs from Python's.
YEARS = range(2000, 2101)
DATE_HINT = "write publish_at like 2026-12-24T18:00+01:00"

Found = TypeVar("Found")
_NOTHING: tuple[object, ...] = (None, "", [])


@dataclass(frozen=True)
class Refusal:
    """A row that was refused. `line` counts from 1. `reason` is one line of at most REASON_CHARACTERS.

    `entry`: the number of the brief in a list, from 1, because a list may be on a single line. `header`: the mistake is in the
    column names, not in a row.
    """

    file: str
    line: int
    reason: str
    entry: int | None = None
    header: bool = False

    def __str__(self) -> str:
        entry = "" if self.entry is None else f"entry {self.entry}: "
        return f"{self.file}:{self.line}: {entry}{self.reason}"


@dataclass(frozen=True)
class Accepted:
    """A good row. `line`: where it begins. `given`: the fields for which it has a value. `entry`: see `Refusal`."""

    brief: Brief
    line: int
    given: frozenset[str] = frozenset(FIELDS)
    entry: int | None = None

    @property
    def changes(self) -> BriefChanges:
        """What this row changes in an existing video with the same title, angle, facts and channel."""
        brief, given = self.brief, self.given
        return BriefChanges(
            platforms=brief.platforms if "platforms" in given else None,
            publish_at=brief.publish_at if "publish_at" in given else None,
            priority=brief.priority if "priority" in given else None,
        )


@dataclass(frozen=True)
class Batch:
    """The contents of a file. `held`: how many good rows cannot be accepted because the header has a mistake."""

    accepted: Sequence[Accepted]
    refused: Sequence[Refusal]
    held: int = 0

    @property
    def rows_refused(self) -> int:
        """How many rows were not accepted, for any reason."""
        return self.held + sum(not refusal.header for refusal in self.refused)


def load(path: Path) -> bytes:
    """The file's bytes, cut one byte past the limit of `read`. Raises InvalidInput when the file cannot be read."""
    try:
        if path.is_dir():
            raise InvalidInput(f"{path} is a folder; name a file in it")
        if not path.exists():
            raise InvalidInput(f"there is no file {path}")
        if not path.is_file():
            raise InvalidInput(f"{path} is not a regular file")
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error


def read(name: str, content: bytes, channels: Mapping[str, Channel]) -> Batch:
    """Parse the briefs in a file. The suffix of `name` decides the format, and refusals show `name`. Never raises.

    Columns or keys: title (required), angle, facts (a list, or text separated by `|`), channel (default: the first one), platforms
    (a list, or text separated by commas or spaces; default: all of the channel's), publish_at (ISO 8601; UTC if it has no time
    zone), priority (0, the highest, to 9).
    """
    accepted: list[Accepted] = []
    refused: list[Refusal] = []
    seen: dict[str, str] = {}
    held = 0
    for row in _rows(name, content):
        try:
            brief = _brief(row, channels)
            if brief.fingerprint in seen:
                raise InvalidInput(f"duplicate: the same brief is already on {seen[brief.fingerprint]}")
        except InvalidInput as bad:
            header = isinstance(row, BadRow) and row.header
            refused.append(Refusal(printable(name, 1_000), row.line, printable(str(bad), REASON_CHARACTERS), row.entry, header))
        else:
            seen[brief.fingerprint] = f"line {row.line}{'' if row.entry is None else f' as entry {row.entry}'}"
            assert isinstance(row, BriefRow)
            if row.held:
                held += 1
                continue
            given = frozenset(name for name, value in row.fields.items() if value not in _NOTHING)
            accepted.append(Accepted(brief, row.line, given, row.entry))
    return Batch(accepted, refused, held)


def printable(text: str, limit: int) -> str:
    """The text made safe for a terminal or a log: one line, at most `limit` characters, only printable ones."""
    kept = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text[: limit + 1])
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def _rows(name: str, content: bytes) -> Iterator[BriefRow | BadRow]:
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        yield BadRow(1, f"unknown file type {_short(suffix) or '(none)'!r}; use {', '.join(SUFFIXES)}")
    elif len(content) > MAX_FILE_BYTES:
        yield BadRow(1, f"the file is larger than {MAX_FILE_BYTES // 1024**2} MiB; split it")
    elif suffix in SHEETS:
        yield from sheet_rows(content, FIELDS)
    else:
        yield from _text_rows(suffix, content)


def _text_rows(suffix: str, content: bytes) -> Iterator[BriefRow | BadRow]:
    tables = (".csv", ".tsv")
    try:
        content = as_utf8(content)
    except ValueError:
        yield BadRow(1, "the file begins like UTF-16 but is not; save it as UTF-8")
        return
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        names = f"; its first line should name the columns: {','.join(FIELDS)}" if suffix in tables else ""
        yield BadRow(1, f"the file is empty{names}")
    elif suffix in tables:
        yield from csv_rows(content, FIELDS)
    elif suffix in (".yaml", ".yml"):
        yield from yaml_rows(content)
    else:
        yield from (json_document_rows if suffix == ".json" else json_rows)(content)


def _brief(row: BriefRow | BadRow, channels: Mapping[str, Channel]) -> Brief:
    if isinstance(row, BadRow):
        raise InvalidInput(row.reason)
    # Without a title column there is no title to check, so the line number serves as one.
    fields = {"title": str(row.line), **row.fields} if row.held else row.fields
    return make_brief(fields, channels)


def make_brief(given: Mapping[str, Any], channels: Mapping[str, Channel]) -> Brief:
    """Make a brief from a person's values, which may be texts or lists (see `read`).

    Raises InvalidInput, which lists all mistakes.
    """
    faults = [f"unknown key {_short(str(key))!r}" for key in given if key not in FIELDS][:SHOWN_KEYS]
    if faults:
        faults[-1] += f"; the keys are {', '.join(FIELDS)}"
    channel = _collect(faults, lambda: _channel(given.get("channel"), channels))
    readers: dict[str, Callable[[], Any]] = {
        "title": lambda: _title(given.get("title")),
        "angle": lambda: _text("angle", given.get("angle")),
        "facts": lambda: tuple(" ".join(fact.split()) for fact in _listed("facts", given.get("facts"), "|")),
        # The channel decides which platforms are possible.
        "platforms": lambda: _platforms(given.get("platforms"), channel) if channel else None,
        "publish_at": lambda: _time(given.get("publish_at")),
        "priority": lambda: _priority(given.get("priority")),
    }
    found = {name: _collect(faults, reader) for name, reader in readers.items()}
    # A value with a mistake is already in `faults`. It is left out or replaced here, so that the other values are still checked.
    placeholders = {"title": "-", "channel": "-", "platforms": tuple(Platform)}
    known = {name: value for name, value in found.items() if value is not None}
    if channel is not None:
        known["channel"] = channel.name
    try:
        brief = Brief.model_validate({**placeholders, **known})
    except ValidationError as error:
        raise InvalidInput("; ".join([*faults, *all_problems(error)])) from error
    if faults:
        raise InvalidInput("; ".join(faults))
    return brief


def _collect(faults: list[str], read: Callable[[], Found]) -> Found | None:
    """Return what `read` returns. When it raises InvalidInput, add the message to `faults` and return None."""
    try:
        return read()
    except InvalidInput as fault:
        faults.append(str(fault))
        return None


def _title(value: Any) -> str:
    title = " ".join(_text("title", value).split())
    if not title:
        raise InvalidInput("title is missing")
    return title


def _channel(value: Any, channels: Mapping[str, Channel]) -> Channel:
    name = _text("channel", value) or next(iter(channels))
    if name not in channels:
        raise InvalidInput(f"unknown channel {_short(name)!r}; the channels are {', '.join(channels)}")
    return channels[name]


NOW = "now"


def make_changes(given: Mapping[str, Any], channel: Channel) -> BriefChanges:
    """Make changes from a person's values: title, platforms, publish_at (or `now`) and priority. Raises InvalidInput."""
    title = " ".join(_text("title", given.get("title")).split())
    now = _text("publish_at", given.get("publish_at")).casefold() == NOW
    return BriefChanges(
        title=title or None,
        platforms=_platforms(given["platforms"], channel) if given.get("platforms") else None,
        publish_at=None if now else _time(given.get("publish_at")),
        publish_now=now,
        priority=_priority(given.get("priority")),
    )


def _text(field: str, value: Any) -> str:
    """The stripped text; empty for None. Raises InvalidInput for a value that is not text, or that has unsafe characters."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{field} should be text")
    if (problem := unfit(value)) is not None:
        raise InvalidInput(f"{field} {problem}")
    return value.strip()


def _listed(field: str, value: Any, separators: str) -> list[str]:
    """The parts of a list or of a separated text, without empty ones."""
    parts = re.split(f"[{re.escape(separators)}]", value) if isinstance(value, str) else [] if value is None else value
    if not isinstance(parts, list):
        raise InvalidInput(f"{field} should be a list, or text separated by `{separators[0]}`")
    return [text for text in (_text(f"each of {field}", part) for part in parts) if text]


def _platforms(value: Any, channel: Channel) -> tuple[Platform, ...]:
    wanted: list[Platform] = []
    for name in _listed("platforms", value, ",;| \t\n"):
        try:
            platform = Platform(name.lower())
        except ValueError:
            raise InvalidInput(f"unknown platform {_short(name)!r}; the platforms are {', '.join(Platform)}") from None
        if platform not in channel.accounts:
            raise InvalidInput(f"channel {channel.name} has no account on {platform}; add one to channels.yaml")
        if platform not in wanted:
            wanted.append(platform)
    return tuple(wanted or channel.accounts)


def _time(value: Any) -> datetime | None:
    """The time in UTC."""
    text = _text("publish_at", value)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"bad date {_short(text)!r}; {DATE_HINT}") from None
    if moment.year not in YEARS:
        raise InvalidInput(f"bad date {_short(text)!r}: the year should be {YEARS[0]} to {YEARS[-1]}; {DATE_HINT}")
    return moment


def _priority(value: Any) -> int | None:
    number = value.strip() if isinstance(value, str) else value
    if number is None or number == "":
        return None
    if isinstance(number, str) and re.fullmatch(r"[0-9]", number):
        return int(number)
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= 9:
        return number
    raise InvalidInput(f"bad priority {_short(json.dumps(number))}; it is a number from 0 (the most urgent) to 9")


def _short(value: str) -> str:
    return printable(value, SHOWN_CHARACTERS)

"""Parses CSV, JSON, JSON Lines and YAML files into rows, each with the line it begins on. Unreadable parts become bad rows.

`intake` interprets the fields and checks their values.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.reader import Reader
from yaml.resolver import Resolver

from phantoms_dagster.domain.counting import counted

# A brief needs four levels and, with thirty facts, about fifty values. These limits stop small files that aliases make explode.
MAX_YAML_DEPTH = 6
MAX_YAML_VALUES = 5_000
_YAML_SCALARS = ("str", "int", "float", "bool", "timestamp", "null", "value")
_YAML_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in (*_YAML_SCALARS, "seq", "map"))
_NOT_UTF8 = "not UTF-8; save the file as UTF-8"
_BOM = "\ufeff"
_MARK = "\ufffd"
# Longer marks first: UTF-32 little-endian begins with the mark of UTF-16.
_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Without this limit, a file that is not a table would have each word of its first line reported.
MOST_HEADER_FAULTS = 10
_SEPARATORS = (",", ";", "\t")
# Excel writes this line, and hides it from its user.
_EXCEL_SEPARATOR = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE | re.DOTALL)
_WRAPPED = re.compile(r'\s*\{\s*"briefs"\s*:\s*\[')
_JSON_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class BriefRow:
    """A readable row. `line` counts from 1. In CSV and YAML every value is text.

    `entry`: its number in a list, from 1, if the format has lists. `held`: it cannot be accepted because the header has a mistake.
    """

    line: int
    fields: Mapping[str, Any]
    entry: int | None = None
    held: bool = False


@dataclass(frozen=True)
class BadRow:
    """An unreadable row, or the unreadable rest of the file. `entry`: see `BriefRow`."""

    line: int
    reason: str
    entry: int | None = None
    header: bool = False
    """It is a mistake in the header, not a row. No row can be accepted then, but the rows are still checked."""


def as_utf8(content: bytes) -> bytes:
    """The content in UTF-8. UTF-16 and UTF-32, which Excel and Windows write, are converted. Raises ValueError if that fails."""
    encoding = next((name for mark, name in _WIDE_MARKS if content.startswith(mark)), None) or _unmarked_utf16(content)
    return content.decode(encoding).encode() if encoding else content


def _unmarked_utf16(content: bytes) -> str | None:
    """The byte order of UTF-16 without a byte order mark, if it is that: with Latin letters, every other byte is zero."""
    start = content[:64]
    if len(start) < 4 or len(content) % 2:
        return None
    if start[1::2].count(0) * 2 > len(start) // 2 and not start[0::2].count(0):
        return "utf-16-le"
    return "utf-16-be" if start[0::2].count(0) * 2 > len(start) // 2 and not start[1::2].count(0) else None


def csv_rows(content: bytes, columns: Sequence[str]) -> Iterator[BriefRow | BadRow]:
    """The rows of a CSV file whose first row names some of `columns`. A broken row does not affect the rows below it.

    Columns are separated by commas, semicolons or tabs. Excel's `sep=;` line decides, else the header.
    """
    lines, spoiled = _lines(content)
    declared = _EXCEL_SEPARATOR.fullmatch(lines[0]) if lines else None
    separator = declared[1] if declared else _separator(lines)
    header: list[str] | None = None
    problems: list[str] = []
    for first, last, cells in _csv_records(lines, separator, skip=1 if declared else 0):
        broken = next((n for n in range(first, last + 1) if n in spoiled), None)
        if broken is not None:
            yield BadRow(broken, spoiled[broken])
        elif isinstance(cells, str):
            yield BadRow(first, cells)
        elif not any(cell.strip() for cell in cells):
            continue
        elif header is None:
            header = header_of(cells)
            problems = header_problems(header, columns)
            yield from (BadRow(first, problem, header=True) for problem in problems)
            continue
        elif header_is_strange(header, columns):
            yield BriefRow(first, {}, held=True)
        else:
            yield table_row(first, cells, header, columns, held=bool(problems))
        if header is None:
            return  # without a header the rows below cannot be parsed


def _separator(lines: Sequence[str]) -> str:
    """The separator with which the first record has a column `title`; a comma if none does."""
    for separator in _SEPARATORS:
        for _, _, cells in _csv_records(lines, separator):
            if isinstance(cells, str) or any(cell.strip() for cell in cells):
                if "title" in header_of(cells):
                    return separator
                break
    return ","


def _csv_records(lines: Sequence[str], separator: str, *, skip: int = 0) -> Iterator[tuple[int, int, list[str] | str]]:
    """Yield each record's first line, last line, and its cells or the error.

    After a broken record, reading continues one line later.
    """
    csv.field_size_limit(sum(map(len, lines)) + 1)  # the default, 131,072, would hide which field is too long
    start = skip
    while start < len(lines):
        reader = csv.reader((lines[n] for n in range(start, len(lines))), strict=True, delimiter=separator)
        done = 0
        try:
            for cells in reader:
                yield start + done + 1, start + reader.line_num, cells
                done = reader.line_num
            return
        except csv.Error as error:
            first = start + done + 1
            yield first, first, _csv_problem(str(error))
            start = first


def _csv_problem(error: str) -> str:
    if "unexpected end" in error:
        return "a quote is opened here and never closed"
    if "expected after" in error:
        return "text follows a closing quote; write a quote inside a quoted text twice"
    return f"not valid CSV: {error}"


def header_of(cells: Sequence[str] | str) -> list[str]:
    """The column names, normalized for comparison, without empty ones at the end."""
    return [] if isinstance(cells, str) else _trimmed(cell.strip().lower() for cell in cells)


def table_row(line: int, cells: list[str], header: list[str], columns: Sequence[str], *, held: bool) -> BriefRow | BadRow:
    """A table row as fields; a BadRow when it has more or fewer columns than the header.

    `held`: the header has a mistake. Then only the columns with correct names are included.
    """
    if len(cells) > len(header):
        cells = [*cells[: len(header)], *_trimmed(cells[len(header) :])]
    if len(cells) != len(header):
        found = counted(len(cells), "column")
        return BadRow(line, f"{found} where the header has {len(header)}; quote texts that contain commas")
    fields = dict(zip(header, cells, strict=True))
    return BriefRow(line, {name: value for name, value in fields.items() if name in columns} if held else fields, held=held)


def header_is_strange(header: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether the header names none of the columns. Then its rows can only be counted."""
    return not set(header) & set(columns)


def header_problems(header: Sequence[str], columns: Sequence[str]) -> list[str]:
    """All mistakes in the column names. A header that names none of the columns is reported once."""
    missing = [] if "title" in header else [f"column `title` is missing; the header names {', '.join(header[:12])}"]
    if header_is_strange(header, columns):
        return missing
    names = dict.fromkeys(header)
    unknown = [f"unknown column {name[:60]!r}; the columns are {', '.join(columns)}" for name in names if name not in columns]
    twice = [f"column `{name}` appears twice in the header" for name in names if name in columns and header.count(name) > 1]
    return [*missing, *unknown[:MOST_HEADER_FAULTS], *twice]


def _trimmed(cells: Any) -> list[str]:
    """Remove empty cells at the end, which spreadsheets add."""
    kept = list(cells)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def json_rows(content: bytes) -> Iterator[BriefRow | BadRow]:
    """The rows of a file with one JSON object per line."""
    lines, spoiled = _lines(content)
    for number, line in enumerate(lines, start=1):
        if number in spoiled:
            yield BadRow(number, spoiled[number])
        elif line.strip():
            yield _json_row(number, line)


def json_document_rows(content: bytes) -> Iterator[BriefRow | BadRow]:
    """The rows of a JSON file: a list of briefs, `{"briefs": [...]}`, or a sequence of objects on any number of lines.

    Items before a syntax error are good. The rest cannot be read.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield BadRow(content.count(b"\n", 0, error.start) + 1, _NOT_UTF8)
        return
    wrapped = _WRAPPED.match(text)
    at = wrapped.end() if wrapped else _after_space(text, 0)
    listed = wrapped is not None or text[at : at + 1] == "["
    if listed and not wrapped:
        at += 1
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    for entry in itertools.count(1):
        at = _after_space(text, at)
        if at == len(text) and not listed:
            return
        if listed and text[at : at + 1] == "]":
            break
        line = text.count("\n", 0, at) + 1
        try:
            item, at = decoder.raw_decode(text, at)
        except RecursionError:
            yield BadRow(line, "cannot be read from here on: nested too deeply", entry)
            return
        except ValueError as error:
            wrong = error.lineno if isinstance(error, json.JSONDecodeError) else line
            yield BadRow(wrong, f"cannot be read from here on: {_json_problem(error)}", entry)
            return
        yield BriefRow(line, item, entry) if isinstance(item, dict) else BadRow(line, "each brief should be a JSON object", entry)
        at = _after_space(text, at)
        if listed and text[at : at + 1] == ",":
            at += 1
    at = _after_space(text, at + 1)
    if wrapped and text[at : at + 1] == "}":
        at = _after_space(text, at + 1)
    if at < len(text):
        yield BadRow(text.count("\n", 0, at) + 1, "cannot be read from here on: text follows the end of the list")


def _after_space(text: str, at: int) -> int:
    found = _JSON_SPACE.match(text, at)
    assert found is not None
    return found.end()


def _json_problem(error: ValueError) -> str:
    """The error without its line, which the row already has."""
    return f"{error.msg} at character {error.colno} of the line" if isinstance(error, json.JSONDecodeError) else str(error)


def _json_row(number: int, line: str) -> BriefRow | BadRow:
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except RecursionError:
        return BadRow(number, "nested too deeply")
    except ValueError as error:
        return BadRow(number, f"not JSON: {_json_problem(error)}")
    return BriefRow(number, row) if isinstance(row, dict) else BadRow(number, "each line should be a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:60]!r} appears twice")
        found[key] = value
    return found


def yaml_rows(content: bytes) -> Iterator[BriefRow | BadRow]:
    """The rows of a YAML list, or of the list under `briefs:`. Items before a syntax error are good. The rest cannot be read."""
    lines, spoiled = _lines(content)
    # One byte that YAML does not allow would make the whole file unreadable. Replaced by a mark, it affects only its own item.
    text, replaced = Reader.NON_PRINTABLE.subn(_MARK, "".join(lines))
    loader = _loader(text)
    try:
        for entry, node in enumerate(_items(loader), start=1):
            line = _line(node)
            try:
                fields = _Plain(spoiled=bool(spoiled or replaced)).mapping(node, 0)
            except _Unusable as error:
                yield BadRow(line, str(error), entry)
            else:
                yield BriefRow(line, fields, entry)
    except _Unusable as error:
        yield BadRow(error.line, str(error))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        yield BadRow(mark.line + 1 if mark else 1, f"cannot be read from here on: {getattr(error, 'problem', None) or error}")
    except RecursionError:
        yield BadRow(1, "cannot be read: nested too deeply")
    finally:
        loader.dispose()


class _Unusable(Exception):
    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.line = line


def _loader(text: str) -> Any:
    """A loader that composes one item at a time. It uses the C parser, which is fifteen times as fast, if PyYAML has it."""
    if not yaml.__with_libyaml__:
        return yaml.SafeLoader(text)

    from yaml.cyaml import CParser  # type: ignore[attr-defined]  # noqa: PLC0415  is not there without libyaml

    class Loader(Composer, CParser, Resolver):
        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            Composer.__init__(self)
            Resolver.__init__(self)

    return Loader(text)


def _items(loader: Any) -> Iterator[yaml.Node]:
    """Yield the items of the list one by one, so that a syntax error does not affect the items before it."""
    loader.get_event()  # stream start
    if loader.check_event(yaml.StreamEndEvent):
        raise _Unusable("the file is empty")
    loader.get_event()  # document start
    wrapped = loader.check_event(yaml.MappingStartEvent)
    if wrapped:
        loader.get_event()
        key = loader.get_event()
        if getattr(key, "value", None) != "briefs":
            raise _Unusable("the file should be a list of briefs, or `briefs:` with a list", _line(key))
    opening = loader.get_event()
    if not isinstance(opening, yaml.SequenceStartEvent):
        raise _Unusable("the file should be a list of briefs", _line(opening))
    while not loader.check_event(yaml.SequenceEndEvent):
        yield loader.compose_node(None, None)
    loader.get_event()
    if wrapped and not loader.check_event(yaml.MappingEndEvent):
        raise _Unusable("only `briefs:` is allowed at the top level", _line(loader.peek_event()))
    while not loader.check_event(yaml.StreamEndEvent):
        event = loader.get_event()
        if isinstance(event, yaml.DocumentStartEvent):
            raise _Unusable("a second document begins here; put all briefs into one list", _line(event))


def _line(item: Any) -> int:
    """The line (from 1) on which a YAML event or node begins."""
    line: int = item.start_mark.line + 1
    return line


class _Plain:
    """Converts one item to mappings, lists and texts. Scalars stay text: `no` is not False and `1984` is not a number."""

    def __init__(self, *, spoiled: bool) -> None:
        self._spoiled = spoiled
        self._left = MAX_YAML_VALUES

    def mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """A mapping, with `<<` merged in. Raises _Unusable."""
        if not isinstance(node, yaml.MappingNode):
            raise _Unusable("each brief should be a mapping with a title")
        self._enter(node, depth)
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = {**self.mapping(source, depth + 1), **merged}
                continue
            name = self._value(key, depth + 1)
            if not isinstance(name, str):
                raise _Unusable("each key should be a word")
            if name in found:
                raise _Unusable(f"key {name[:60]!r} appears twice")
            found[name] = self._value(value, depth + 1)
        return {**merged, **found}

    def _value(self, node: yaml.Node, depth: int) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, depth)
        self._enter(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, depth + 1) for child in node.value]
        if self._spoiled and _MARK in node.value:
            raise _Unusable("contains a control character, or bytes that are not UTF-8")
        return None if node.tag == "tag:yaml.org,2002:null" else node.value

    def _enter(self, node: yaml.Node, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Unusable(f"more than {MAX_YAML_VALUES:,} values, including aliases")
        if depth > MAX_YAML_DEPTH:
            raise _Unusable("nested too deeply")
        if node.tag not in _YAML_TAGS:
            raise _Unusable(f"the tag {node.tag[:60]!r} is not allowed")


def _lines(content: bytes) -> tuple[list[str], dict[int, str]]:
    """The lines with their line ends, and the errors of lines that are not UTF-8.

    Bad bytes are replaced, so that quotes still match.
    """
    lines: list[str] = []
    spoiled: dict[int, str] = {}
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            spoiled[number] = f"{_NOT_UTF8} (byte {error.start + 1} of the line)"
            lines.append(line.decode("utf-8", errors="replace"))
    if lines:
        lines[0] = lines[0].removeprefix(_BOM)
    return lines, spoiled

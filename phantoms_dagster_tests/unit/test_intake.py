"""Briefs from files: every bad row is named with file, line and reason, and every good one is taken."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain.channels import default_text, parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.production import intake, rows, sheets
from phantoms_dagster.production.intake import Batch, load, make_brief, read

CHANNELS = parse(default_text())
LONG = "x" * 10_000_000


def reading(name: str, content: str | bytes) -> Batch:
    batch = read(name, content.encode() if isinstance(content, str) else content, CHANNELS)
    for refusal in batch.refused:
        assert refusal.file == name
        assert 1 <= len(refusal.reason) <= intake.REASON_CHARACTERS
        assert str(refusal).isprintable()
    return batch


def taken(batch: Batch) -> list[tuple[int, str]]:
    return [(row.line, row.brief.title) for row in batch.accepted]


def refused(batch: Batch) -> dict[int, str]:
    return {r.line: r.reason for r in batch.refused}


def assert_refused(batch: Batch, expected: dict[int, str]) -> None:
    found = refused(batch)
    assert list(found) == list(expected)
    for line, reason in expected.items():
        assert reason in found[line], (line, found[line])


def test_every_bad_row_of_a_csv_is_named_and_the_good_ones_are_taken() -> None:
    lines = [
        b"title,platforms,publish_at,priority",
        b"Good,,,",
        b"Bad date,,next tuesday,",
        b"Bad platform,vimeo,,",
        LONG.encode() + b",,,",
        b"Not UTF-8 \xff,,,",
        b"Good,,,",
        b"Bad priority,,,urgent",
        b",,,7",
        b"Too few columns,",
        b"Too many, columns, in, this, row",
        b'Quote "inside",,,',
        b'"Quote" outside,,,',
        b"Fine,youtube tiktok,2026-12-24T18:00+01:00,0",
    ]
    batch = reading("briefs.csv", b"\n".join(lines))
    assert taken(batch) == [(2, "Good"), (12, 'Quote "inside"'), (14, "Fine")]
    assert_refused(
        batch,
        {
            3: "bad date 'next tuesday'; write publish_at like",
            4: "unknown platform 'vimeo'; the platforms are youtube, tiktok, instagram",
            5: "title: should have at most 200 characters",
            6: "not UTF-8; save the file as UTF-8 (byte 11 of the line)",
            7: "duplicate: the same brief is already on line 2",
            8: 'bad priority "urgent"',
            9: "title is missing",
            10: "2 columns where the header has 4",
            11: "5 columns where the header has 4",
            13: "text follows a closing quote",
        },
    )


def test_every_bad_line_of_a_jsonl_is_named_and_the_good_ones_are_taken() -> None:
    lines = [
        b'{"title": "Good", "facts": ["a", "b"], "platforms": ["tiktok"], "priority": 3}',
        b'{"angle": "no title"}',
        b'{"title": "Date", "publish_at": "2026-13-01"}',
        b'{"title": "Platform", "platforms": "youtube,vimeo"}',
        b'{"title": "' + LONG.encode() + b'"}',
        b'{"title": "\xff"}',
        b'{"title": "Good", "facts": ["b", "a"]}',
        b'{"title": "Priority", "priority": true}',
        b'{"title": "Priority", "priority": 10}',
        b'{"title": "NUL \\u0000"}',
        b'{"title": "half \\ud83d"}',
        b'{"title": 1984}',
        b'{"title": "Facts", "facts": {"a": 1}}',
        b'{"title": "a", "title": "b"}',
        b'{"titel": "typo"}',
        b'["list"]',
        b"[" * 100_000,
        b'{"title": "cut',
        b'  {"title": "Last"}  ',
    ]
    batch = reading("briefs.jsonl", b"\n".join(lines))
    assert taken(batch) == [(1, "Good"), (19, "Last")]
    assert batch.accepted[0].brief.facts == ("a", "b")
    assert_refused(
        batch,
        {
            2: "title is missing",
            3: "bad date '2026-13-01'",
            4: "unknown platform 'vimeo'",
            5: "title: should have at most 200 characters",
            6: "not UTF-8",
            7: "duplicate: the same brief is already on line 1",
            8: "bad priority true",
            9: "bad priority 10",
            10: "title contains the control character U+0000",
            11: "title contains half of a character",
            12: "title should be text",
            13: "facts should be a list",
            14: "key 'title' appears twice",
            15: "unknown key 'titel'; the keys are title, angle",
            16: "each line should be a JSON object",
            17: "nested too deeply",
            18: "not JSON",
        },
    )


YAML = b"""briefs:
- title: Good
  facts: [a, b]
- angle: no title
- title: Date
  publish_at: 2026-13-45
- title: Platform
  platforms: [vimeo]
- title: %b
- title: Not UTF-8 \xff
- title: NUL \x00
- title: Good
  facts: [b, a]
- title: Priority
  priority: soon
- title: a
  title: b
- just text
- !!python/object/apply:os.system {title: run}
- title: 1984
  angle: no
  priority: 3
  publish_at: 2026-12-24 18:00:00
"""


@pytest.mark.parametrize("fast", [True, False])
def test_every_bad_item_of_a_yaml_is_named_and_the_good_ones_are_taken(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """The Python parser is used where PyYAML has no C parser. It is too slow for ten million characters."""
    monkeypatch.setattr(yaml, "__with_libyaml__", fast)
    batch = reading("briefs.yaml", YAML % (LONG.encode() if fast else b"x" * 1_000))
    assert taken(batch) == [(2, "Good"), (20, "1984")]
    brief = batch.accepted[1].brief
    assert (brief.angle, brief.priority, brief.publish_at) == ("no", 3, datetime(2026, 12, 24, 18, tzinfo=UTC))
    assert_refused(
        batch,
        {
            4: "title is missing",
            5: "bad date '2026-13-45'",
            7: "unknown platform 'vimeo'",
            9: "title: should have at most 200 characters",
            10: "bytes that are not UTF-8",
            11: "contains a control character",
            12: "duplicate: the same brief is already on line 2",
            14: 'bad priority "soon"',
            16: "key 'title' appears twice",
            18: "each brief should be a mapping",
            19: "python/object/apply:os.system' is not allowed",
        },
    )


def test_what_is_above_a_yaml_mistake_is_taken() -> None:
    batch = reading("b.yaml", "- title: A\n- title: B\n- title: [\n- title: C\n")
    assert taken(batch) == [(1, "A"), (2, "B")]
    assert "cannot be read from here on" in batch.refused[0].reason


def test_anchors_and_merge_keys_work_and_the_items_own_keys_win() -> None:
    content = (
        "- &base {title: One, angle: Same, priority: 1}\n- {<<: *base, title: Two}\n- {<<: [*base], priority: 2, title: Three}\n"
    )
    batch = reading("b.yaml", content)
    assert [(a.brief.title, a.brief.angle, a.brief.priority) for a in batch.accepted] == [
        ("One", "Same", 1),
        ("Two", "Same", 1),
        ("Three", "Same", 2),
    ]


@pytest.mark.parametrize(
    ("first", "item"),
    [
        ("- {title: t, facts: &a [x, x, x, x, x, x, x, x, x, x]}\n", "- {{title: t{0}, facts: &{1} [{2}]}}\n"),
        ("- &a {title: t, angle: x}\n", "- &{1} {{<<: [{2}], title: t{0}}}\n"),
    ],
)
def test_an_alias_bomb_does_not_explode(first: str, item: str) -> None:
    names = "abcdefghijkl"
    bomb = first + "".join(item.format(n, names[n], ", ".join([f"*{names[n - 1]}"] * 10)) for n in range(1, len(names)))
    batch = reading("bomb.yaml", bomb)
    assert len(batch.accepted) + len(batch.refused) == len(names)
    assert "including aliases" in " ".join(refused(batch).values())


@pytest.mark.parametrize("content", ["- &a {title: x, facts: [*a]}\n", "[" * 50_000, "{? [a] : b}", "- {[a]: b}\n", "- &a [*a]\n"])
def test_a_twisted_yaml_is_refused(content: str) -> None:
    batch = reading("b.yaml", content)
    assert not batch.accepted
    assert batch.refused


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("briefs: 5", 1, "should be a list of briefs"),
        ("videos:\n- title: A", 1, "`briefs:` with a list"),
        ("- title: A\n---\n- title: B\n", 2, "a second document begins here"),
        ("briefs:\n- title: A\nmore: 1\n", 3, "only `briefs:` is allowed at the top level"),
        ("# nothing but this\n", 1, "the file is empty"),
    ],
)
def test_a_yaml_that_is_not_a_list_of_briefs_says_what_it_should_be(content: str, line: int, reason: str) -> None:
    assert reason in refused(reading("b.yml", content))[line]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("angle,facts\na,b\n", "column `title` is missing; the header names angle, facts"),
        ("angle;facts\na;b\n", "column `title` is missing"),
        ("sep=;\ntitle,angle\na,b\n", "column `title` is missing"),
        ("title,autor\na,b\n", "unknown column 'autor'"),
        ("title,title\na,b\n", "column `title` appears twice"),
        (",".join(["x" * 1_000] * 1_000), "column `title` is missing"),
        ('"title\n', "a quote is opened here and never closed"),
    ],
)
def test_a_csv_with_a_wrong_header_is_refused_as_a_whole(content: str, reason: str) -> None:
    batch = reading("b.csv", content)
    assert not batch.accepted
    [refusal] = batch.refused
    assert refusal.line == (2 if content.startswith("sep=") else 1)
    assert reason in refusal.reason


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_faults_of_the_columns_hide_no_fault_of_a_row_and_every_row_is_counted(suffix: str) -> None:
    rows = [["title", "autor", "Prio", "publish_at", "priority"], ["A", "x", "1", "never", ""], ["B", "", "", "", "77"]]
    rows += [["C", "x", "", "", "1"], ["D", "x", "", "", ""], ["C", "", "", "", ""], ["", "x", "", "soon", "ten"]]
    content = sheet(rows) if suffix == "xlsx" else "\n".join(map(",".join, rows))
    batch = reading(f"b.{suffix}", content)
    columns = "the columns are title, angle, facts, channel, platforms, publish_at, priority"
    assert [(r.line, r.header) for r in batch.refused] == [(1, True), (1, True), (2, False), (3, False), (6, False), (7, False)]
    reasons = [r.reason for r in batch.refused]
    assert reasons[:2] == [f"unknown column 'autor'; {columns}", f"unknown column 'prio'; {columns}"]
    assert "bad date 'never'" in reasons[2]
    assert 'bad priority "77"' in reasons[3]
    assert reasons[4] == "duplicate: the same brief is already on line 4"
    for part in ("title is missing", "bad date 'soon'", 'bad priority "ten"'):
        assert part in reasons[5]
    assert (list(batch.accepted), batch.held, batch.rows_refused) == ([], 2, 6)


def test_everything_that_is_wrong_with_a_row_is_reported_at_once() -> None:
    row = '{"title": "", "chanel": "sea", "publish_at": "never", "priority": 77, "platforms": "youtube,vine", "angle": 5}'
    told = refused(reading("b.jsonl", row))[1]
    for part in ("unknown key 'chanel'", "title is missing", "angle should be text", "'vine'", "'never'", "77"):
        assert part in told, part


def test_a_header_in_another_encoding_says_so() -> None:
    assert "not UTF-8" in refused(reading("b.csv", "titlé\nGrün".encode("cp1252")))[1]
    assert "begins like UTF-16" in refused(reading("b.csv", b"\xff\xfet"))[1]


@pytest.mark.parametrize("first_line", ["", "sep=,\r\n", '"sep=,"\r\n', "SEP=,\n"])
def test_the_line_that_excel_writes_first_is_not_a_header(first_line: str) -> None:
    batch = reading("b.csv", f"{first_line}title,facts\nA,x|y\n")
    assert [(a.brief.title, a.brief.facts) for a in batch.accepted] == [("A", ("x", "y"))]
    assert not batch.refused


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\ntitle;angle\nA;one, two\n",
        "title;angle\nA;one, two\n",
        "title\tangle\nA\tone, two\n",
        "sep=|\ntitle|angle\nA|one, two\n",
    ],
)
def test_excels_separators_are_understood(content: str) -> None:
    [accepted] = reading("b.csv", content).accepted
    assert (accepted.brief.title, accepted.brief.angle) == ("A", "one, two")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", "title,angle\r\nGrüne Woche,日本\r\n"),
        ("b.tsv", "title\tangle\r\nGrüne Woche\t日本\r\n"),
        ("b.jsonl", '{"title": "Grüne Woche", "angle": "日本"}\n'),
        ("b.json", '[{"title": "Grüne Woche", "angle": "日本"}]'),
        ("b.yaml", "- title: Grüne Woche\n  angle: 日本\n"),
    ],
)
def test_a_text_file_in_any_unicode_encoding_is_read(name: str, content: str, encoding: str) -> None:
    batch = reading(name, content.encode(encoding))
    assert [(a.brief.title, a.brief.angle) for a in batch.accepted] == [("Grüne Woche", "日本")]
    assert not batch.refused


@pytest.mark.parametrize(
    "content",
    [
        '[{"title": "A"},\n {"title": "B"}]',
        '{"briefs": [{"title": "A"},\n{"title": "B"}]}\n',
        '{"title": "A"}\n{"title": "B"}\n',
        '{\n  "title": "A" }{ "title": "B"\n}',
    ],
)
def test_json_is_read_as_a_list_wrapped_or_object_by_object(content: str) -> None:
    batch = reading("b.json", content)
    assert [a.brief.title for a in batch.accepted] == ["A", "B"]
    assert not batch.refused


def test_json_items_above_a_mistake_are_taken_and_the_mistake_has_its_line() -> None:
    batch = reading("b.json", '[{"title": "A"},\n5,\n{"title": "B"},\n{"title": "C",}\n]')
    assert taken(batch) == [(1, "A"), (3, "B")]
    assert_refused(batch, {2: "should be a JSON object", 4: "cannot be read from here on"})
    assert "text follows" in refused(reading("b.json", '[{"title": "A"}]\n{"title": "B"}'))[2]


def sheet(rows: Sequence[Sequence[object]]) -> bytes:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(list(row))
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_a_spreadsheet_is_read_as_its_user_sees_it() -> None:
    rows: list[list[object]] = [
        ["Title", "facts", "publish_at", "Priority", None],
        ["Grüne Woche", "x|y", datetime(2026, 12, 24, 18, 0), 3, None],  # noqa: DTZ001  a cell has no zone
        [None, None, None, None, None],
        [1984, None, None, None, None],
        ["C", None, None, None, "more"],
    ]
    batch = reading("b.xlsx", sheet(rows))
    assert [(a.line, a.brief.title, a.brief.facts, a.brief.publish_at, a.brief.priority) for a in batch.accepted] == [
        (2, "Grüne Woche", ("x", "y"), datetime(2026, 12, 24, 18, 0, tzinfo=UTC), 3),
        (4, "1984", (), None, 5),
    ]
    assert_refused(batch, {5: "5 columns where the header has 4"})


def test_a_file_that_is_not_a_spreadsheet_or_a_bomb_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be read as a spreadsheet" in refused(reading("b.xlsx", b"title\nA\n"))[1]
    assert "the first sheet is empty" in refused(reading("b.xlsx", sheet([])))[1]
    assert "column `title` is missing" in refused(reading("b.xlsx", sheet([["a"], ["b"]])))[1]
    monkeypatch.setattr(sheets, "MAX_UNPACKED_BYTES", 1_000)
    assert "unpacks to" in refused(reading("b.xlsx", sheet([["title"], ["A"]])))[1]


def test_a_quote_that_is_never_closed_costs_its_row_alone() -> None:
    batch = reading("b.csv", 'title,angle\nA,a\nB,"never closed\nC,c\nD,d\n')
    assert taken(batch) == [(2, "A"), (4, "C"), (5, "D")]
    assert_refused(batch, {3: "a quote is opened here and never closed"})


def test_bad_bytes_inside_a_quoted_text_do_not_swallow_the_rows_below() -> None:
    batch = reading("b.csv", b'title,angle\nA,"one\ntwo \xff"\nB,b\n')
    assert taken(batch) == [(4, "B")]
    assert list(refused(batch)) == [3]


def test_bom_crlf_quoted_newlines_blank_lines_and_a_spreadsheets_empty_cells_are_fine() -> None:
    content = '\ufeff\r\nTitle , ANGLE,facts,,\r\n\r\n"A ""long""\r\ntitle","one\r\ntwo",x | y||,,\r\n,,,,\r\nB,b,\r\n'
    batch = reading("b.CSV", content)
    assert [(a.line, a.brief.title, a.brief.angle, a.brief.facts) for a in batch.accepted] == [
        (4, 'A "long" title', "one\r\ntwo", ("x", "y")),
        (8, "B", "b", ()),
    ]
    assert not batch.refused
    assert taken(reading("b.jsonl", '\ufeff{"title": "A"}\r\n\r\n{"title": "B"}\r\n')) == [(1, "A"), (3, "B")]
    assert taken(reading("b.yaml", "\ufeff- title: A\r\n- title: B\r\n")) == [(1, "A"), (2, "B")]


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl", "b.ndjson", "b.yaml", "b.yml"])
@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_named(name: str, content: bytes) -> None:
    [refusal] = reading(name, content).refused
    assert (refusal.line, refusal.reason.startswith("the file is empty")) == (1, True)


@pytest.mark.parametrize("name", ["b.txt", "b.docx", "briefs", ".csv", "b." + "x" * 200])
def test_an_unknown_type_names_those_there_are(name: str) -> None:
    assert ".csv, .tsv, .json, .jsonl, .ndjson, .yaml, .yml, .xlsx" in refused(reading(name, b"title\nA\n"))[1]


def test_a_huge_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(intake, "MAX_FILE_BYTES", 1_000)
    path = tmp_path / "b.csv"
    path.write_text("title\n" + "A\n" * 100_000)
    content = load(path)
    assert len(content) == 1_001
    assert "larger than" in refused(reading("b.csv", content))[1]


def test_what_is_not_a_readable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a folder"):
        load(tmp_path)
    with pytest.raises(InvalidInput, match="there is no file"):
        load(tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="not a regular file"):
        load(Path("/dev/null"))
    with pytest.raises(InvalidInput, match="cannot be read: File name too long"):
        load(tmp_path / ("x" * 5_000))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-12-24T18:00+01:00", datetime(2026, 12, 24, 17, tzinfo=UTC)),
        ("2026-12-24T18:00:00Z", datetime(2026, 12, 24, 18, tzinfo=UTC)),
        ("2026-12-24 18:00", datetime(2026, 12, 24, 18, tzinfo=UTC)),
        (" 2026-12-24 ", datetime(2026, 12, 24, tzinfo=UTC)),
        ("  ", None),
        (None, None),
    ],
)
def test_a_time_is_kept_in_utc(written: str | None, meant: datetime | None) -> None:
    brief = make_brief({"title": "A", "publish_at": written}, CHANNELS)
    assert brief.publish_at == meant
    assert brief.publish_at is None or brief.publish_at.utcoffset() == UTC.utcoffset(None)


@pytest.mark.parametrize("written", ["tomorrow", "24.12.2026", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "0226-12-24"])
def test_a_time_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput, match="bad date"):
        make_brief({"title": "A", "publish_at": written}, CHANNELS)


@pytest.mark.parametrize("priority", [10, -1, 1.5, "1.5", "ten", "10", True, [1], float("nan"), 10**400])
def test_a_priority_that_is_none_is_refused(priority: object) -> None:
    with pytest.raises(InvalidInput, match="bad priority"):
        make_brief({"title": "A", "priority": priority}, CHANNELS)


def test_a_channel_without_an_account_there_is_named() -> None:
    sea = CHANNELS["curious"].model_copy(update={"accounts": {"youtube": "sea"}, "name": "sea"})
    with pytest.raises(InvalidInput, match="channel sea has no account on tiktok"):
        make_brief({"title": "A", "platforms": "tiktok"}, {"sea": sea})
    with pytest.raises(InvalidInput, match="unknown channel 'air'; the channels are sea"):
        make_brief({"title": "A", "channel": "air"}, {"sea": sea})


@pytest.mark.parametrize("name", ["briefs.json", "briefs.yaml"])
def test_a_bad_brief_of_a_list_on_one_line_is_named_by_its_place_in_the_list(name: str) -> None:
    written = '[{"title": "One"}, {"title": "Two", "priority": "soon"}, "three", {"title": "One"}, {"title": "Five"}]'
    batch = read(name, written.encode(), CHANNELS)
    assert [row.entry for row in batch.accepted] == [1, 5]
    told = [str(refusal) for refusal in batch.refused]
    assert told[0].startswith(f'{name}:1: entry 2: bad priority "soon"')
    assert told[1].startswith(f"{name}:1: entry 3: each brief should be a ")
    assert told[2] == f"{name}:1: entry 4: duplicate: the same brief is already on line 1 as entry 1"


@pytest.mark.parametrize(
    ("name", "written", "where"),
    [
        ("briefs.jsonl", '{"title": "One"}\n{"title": "Two" "angle": "x"}\n', "briefs.jsonl:2: not JSON: "),
        (
            "briefs.json",
            '[{"title": "One"},\n{"title": "Two",\n"angle" "x"}]',
            "briefs.json:3: entry 2: cannot be read from here on: ",
        ),
    ],
)
def test_broken_json_is_named_with_the_one_line_where_it_breaks(name: str, written: str, where: str) -> None:
    """The message also had the parser's own count of lines, which was 1 for every line of a JSONL file."""
    [refusal] = read(name, written.encode(), CHANNELS).refused
    assert str(refusal).startswith(where)
    assert "line 1" not in str(refusal)
    assert not re.search(r"\bline \d", str(refusal))


@pytest.mark.parametrize("field", ["title", "angle", "facts"])
@pytest.mark.parametrize("character", ["\u202e", "\u202a", "\u2066", "\u2069"])
def test_a_text_whose_direction_is_turned_by_an_invisible_character_is_refused(field: str, character: str) -> None:
    brief = {"title": "Fish", field: f"a{character}b"}
    [refusal] = read("b.jsonl", json.dumps(brief).encode(), CHANNELS).refused
    assert (
        f"contains the invisible character U+{ord(character):04X}, which turns the direction of the text; remove it"
        in refusal.reason
    )


def test_the_marks_that_right_to_left_texts_need_are_kept() -> None:
    [row] = read("b.jsonl", json.dumps({"title": "\u05d9\u05dd\u200f 5\u200e!"}).encode(), CHANNELS).accepted
    assert row.brief.title == "\u05d9\u05dd\u200f 5\u200e!"


def test_two_briefs_on_one_line_can_be_duplicates() -> None:
    batch = reading("b.yaml", "[{title: A}, {title: a}]")
    assert (len(batch.accepted), len(batch.refused)) == (1, 1)


PIECES = st.lists(
    st.sampled_from(
        [
            *b"\"',|:;-*&<>[]{}!#~\\ \t\n\r\x00\xff\xef",
            b"title",
            b"briefs:\n",
            b"- title: a\n",
            b"\r\n",
            b'{"title": "',
            b'"}',
            b"<<: *a",
            b"&a ",
        ]
    ),
    max_size=40,
).map(lambda parts: b"".join(bytes([p]) if isinstance(p, int) else p for p in parts))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["b.csv", "b.jsonl", "b.yaml"]),
    st.sampled_from([b"", b"title\n", b"title,angle\n"]),
    PIECES | st.binary(max_size=60),
)
def test_no_bytes_make_it_raise_and_no_reason_is_long_or_unprintable(name: str, head: bytes, tail: bytes) -> None:
    batch = reading(name, head + tail)
    lines = (head + tail).count(b"\n") + (head + tail).count(b"\r") + 2
    assert all(1 <= row.line <= lines for row in batch.accepted)
    assert all(1 <= row.line <= lines for row in batch.refused)


CELL = st.text(max_size=12) | st.sampled_from(["Good", "2026-12-24", "youtube", "5", "curious"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(CELL, min_size=7, max_size=7), max_size=6))
def test_every_json_row_is_either_taken_or_refused_with_its_line(table: list[list[str]]) -> None:
    content = "\n".join(json.dumps(dict(zip(intake.FIELDS, row, strict=True))) for row in table)
    batch = reading("b.jsonl", content)
    if table:
        assert sorted([a.line for a in batch.accepted] + [r.line for r in batch.refused]) == list(range(1, len(table) + 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda b: not set(b) & set(b'\r\n"')), max_size=8))
def test_every_row_of_a_csv_that_is_not_empty_is_either_taken_or_refused_with_its_line(cells: list[bytes]) -> None:
    batch = reading("b.csv", b"\n".join([b"title", *cells]))
    shown = {n for n, c in enumerate(cells, start=2) if c.decode("utf-8", errors="replace").replace(",", "").strip()}
    assert {a.line for a in batch.accepted} | {r.line for r in batch.refused} == shown
    assert len(batch.accepted) + len(batch.refused) == len(shown)


def test_the_rows_module_keeps_no_more_aliases_than_a_brief_can_need() -> None:
    facts = ", ".join(f"f{n}" for n in range(30))
    assert len(reading("b.yaml", f"- {{title: A, facts: [{facts}]}}").accepted) == 1
    assert rows.MAX_YAML_VALUES > 100

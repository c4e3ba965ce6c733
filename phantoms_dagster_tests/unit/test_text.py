# ruff: noqa: RUF001  texts in many scripts
"""Text as people type it: every keyboard gives the same form, and no cut splits what a reader sees as one letter."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.channels import parse
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.domain.phrases import shortened
from phantoms_dagster.domain.text import capitals, graphemes, without
from phantoms_dagster.domain.wording import words
from phantoms_dagster.platforms.youtube.words import fit_description, fit_title
from phantoms_dagster.production.intake import make_brief, read
from phantoms_dagster_tests.unit.test_words import channel, script

NFC, NFD = "Café culture", unicodedata.normalize("NFD", "Café culture")
FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
CHANNELS = {"facts": Channel(name="facts", title="Facts", brand_voice="calm", accounts={Platform("youtube"): "main"})}


def test_a_brief_typed_on_a_mac_is_the_same_brief() -> None:
    typed, other = (make_brief({"title": t, "angle": t, "facts": [t]}, CHANNELS) for t in (NFD, NFC))
    assert typed == other
    assert typed.title == NFC
    assert typed.fingerprint == other.fingerprint


def test_two_rows_of_a_file_in_two_forms_are_duplicates() -> None:
    for name, line in (("b.csv", "{}\n"), ("b.jsonl", '{{"title": "{}"}}\n'), ("b.yaml", "- title: {}\n")):
        head = "title\n" if name == "b.csv" else ""
        batch = read(name, f"{head}{line.format(NFD)}{line.format(NFC)}".encode(), CHANNELS)
        assert len(batch.accepted) == 1
        assert "duplicate" in batch.refused[0].reason


def test_a_brief_stored_in_the_other_form_is_read_in_the_common_one() -> None:
    stored = {"title": NFD, "channel": "facts", "platforms": ["youtube"]}
    assert Brief.model_validate_json(json.dumps(stored)).title == NFC


def test_the_words_of_a_channel_have_the_common_form() -> None:
    content = (
        f"channels:\n  a:\n    title: {NFD}\n    brand_voice: {NFD}\n    banned_words: [{NFD}]\n    accounts: {{youtube: {NFD}}}\n"
    )
    read_back = parse(content)["a"]
    assert (read_back.title, read_back.brand_voice, read_back.banned_words) == (NFC, NFC, (NFC,))
    assert list(read_back.accounts.values()) == [NFC]


@given(
    st.lists(st.sampled_from(["a", FAMILY, "e\u0301\u0323", "हि", "\N{REGIONAL INDICATOR SYMBOL LETTER A}" * 2]), max_size=40).map(
        "".join
    ),
    st.integers(2, 30),
)
def test_a_cut_never_splits_a_grapheme(text: str, limit: int) -> None:
    short = shortened(text, limit, "")
    assert len(short) <= limit
    if short != text:
        kept = graphemes(short.removesuffix("…"))
        assert kept == graphemes(text)[: len(kept)]


def test_a_title_that_is_too_long_for_youtube_is_cut_between_graphemes() -> None:
    assert fit_title("x" * 97 + FAMILY + "end") == "x" * 97 + "…"


def test_a_title_that_is_too_long_for_youtube_ends_with_a_whole_phrase() -> None:
    first = "The third heart of an octopus stops beating while it swims"
    assert fit_title(f"{first}, which is why it would rather crawl along the floor of the sea") == first
    assert fit_title("Hearts " * 13 + "and the other organs") == "Hearts " * 12 + "Hearts…"


def test_a_description_without_spaces_is_cut_between_graphemes() -> None:
    assert fit_description("x" * 4_990 + FAMILY * 3) == "x" * 4_990 + "…"


@pytest.mark.parametrize("platform", [Platform("tiktok")])
def test_a_caption_that_is_too_long_is_cut_between_graphemes(platform: Platform) -> None:
    caption = words(script(caption=FAMILY * 300), channel(), platform)[1]
    assert set(graphemes(caption)) == {FAMILY, "…"}


@pytest.mark.parametrize(
    ("written", "language", "shown"),
    [
        ("straße", "de", "STRASSE"),
        ("istanbul ılık", "tr", "İSTANBUL ILIK"),
        ("istanbul", "en", "ISTANBUL"),
        ("γιατί", "el", "ΓΙΑΤΙ"),
        ("საქართველო", "ka", "საქართველო"),
        ("e\u0301te\u0301", "fr", "E\u0301TE\u0301"),
    ],
)
def test_capitals_are_those_of_the_language(written: str, language: str, shown: str) -> None:
    assert capitals(written, language) == shown


def test_what_no_font_has_is_left_out_with_its_small_letters() -> None:
    assert without("a \N{OCTOPUS} b ß", ["\N{OCTOPUS}", "B"]) == "a ß"
    assert without("a  b", []) == "a  b"

"""Markdown that models write is removed, text that only looks like Markdown stays, and the removed parts are reported."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.markup import one_line, plain, posted, spoken


@pytest.mark.parametrize(
    ("written", "shown", "removed"),
    [
        ("**Bold** and _slanted_ and `code`", "Bold and slanted and code", ("**", "_", "`")),
        ("# A heading\n- one\n* two", "A heading one two", ("#", "-", "*")),
        ("see [the paper](https://example.org/a_b) now", "see the paper now", ("(https://example.org/a_b)",)),
        ("***both*** ~~gone~~ **_nested_**", "both gone nested", ("*", "**", "~~", "**", "_")),
        ("```python\nx\n```", "x", ("```python", "```")),
        ("<b>big</b><br>small", "big small", ("<b>", "</b>", "<br>")),
        ('**"Quoted"**, (*really*)', '"Quoted", (really)', ("**", "*")),
        ("这是**粗体。**字", "这是粗体。字", ("**",)),
        ("AT&amp;T", "AT&T", ()),
        ("__Stressed__ and __two words__", "Stressed and two words", ("__", "__")),
        ("a\u00adb\u200bc\ufeff", "abc", ()),
    ],
)
def test_markup_is_removed_and_reported(written: str, shown: str, removed: tuple[str, ...]) -> None:
    left = plain(written)
    assert (left.text, left.removed) == (shown, removed)


@pytest.mark.parametrize(
    "text",
    [
        "5*4*3*2*1 = 120",
        "2*x and 3*y",
        "E = m*c*c",
        "x**2 + y**2 = z**2",
        "f(x)*g and h*",
        "2 * 3 * 4 and 5 < 6 > 2",
        "[1] and [00:10] and [sic]",
        "★ ✓ ♥ \N{OCTOPUS}",
        "snake_case and other_snake_case",
        "Python calls __init__ and __new__, then __get_item__.",
        "f*ck and sh*t",
        "*Terms apply. Rated **** by us.",
        'Press "*" and "*" again',
        "1984. It was cold.",
        "- 5 degrees",
        "> 50% of them",
        "#1 rule",
        "a<b and c>d",
        "C:\\new and \\*a\\*",
        "<3 hearts",
    ],
)
def test_what_only_looks_like_markup_stays(text: str) -> None:
    for left in (plain(text), spoken(text), posted(text)):
        assert (left.text, left.removed) == (text, ())


@given(st.text(st.sampled_from("a5 *=.x\n"), max_size=30))
def test_of_letters_digits_and_stars_only_stars_ever_go(text: str) -> None:
    assert plain(text).text.replace("*", "").replace(" ", "") == text.replace("*", "").replace(" ", "").replace("\n", "")


@given(st.text(max_size=60))
def test_no_text_makes_it_raise_and_the_result_is_one_line(text: str) -> None:
    for left in (plain(text), spoken(text)):
        assert left.text == one_line(left.text)
    posted(text)


def test_the_voice_is_spared_addresses_and_stage_directions() -> None:
    left = spoken("[pause] Go to https://x.example/a?b=1 today. (dramatic pause) See www.nasa.gov.")
    assert left.text == "Go to today. See."
    assert left.removed == ("https://x.example/a?b=1", "www.nasa.gov", "[pause]", "(dramatic pause)")


def test_a_caption_keeps_its_lines_lists_and_addresses() -> None:
    left = posted("**New** [trailer](https://x.example/f)\n\n- 5*4*3\n- #ocean")
    assert left.text == "New trailer (https://x.example/f)\n\n- 5*4*3\n- #ocean"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("[a](b)", "a (b)"),
        (
            "See [our **trailer**](https://x.example/f) and [more](https://y.example).",
            "See our trailer (https://x.example/f) and more (https://y.example).",
        ),
        ("[https://x.example](https://x.example)", "https://x.example"),
        ("[](https://x.example)", "https://x.example"),
        ("[a]()", "a"),
    ],
)
def test_a_link_in_a_caption_is_its_words_and_then_its_address(written: str, text: str) -> None:
    assert posted(written).text == text


def test_a_caption_has_no_tags_and_no_fences_and_a_break_ends_its_line() -> None:
    left = posted("<p>One <b>bold</b> fact.<br>Two &lt; three</p>\n```text\n<3 hearts\n```")
    assert left.text == "One bold fact.\nTwo < three\n\n<3 hearts"
    assert left.removed == ("<p>", "<b>", "</b>", "<br>", "</p>", "```text", "```")

# ruff: noqa: RUF001  texts in many scripts
"""Hashtags: which are valid, how bad ones are refused with the right form, and that no platform shows one twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantoms_dagster.domain.channels import parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.hashtags import Hashtag, in_text, repaired, unique
from phantoms_dagster.domain.models import Channel, Platform, Scene, Script
from phantoms_dagster.domain.wording import words

ONE = "channels:\n  sea:\n    title: The Sea\n    brand_voice: Calm.\n    accounts: {youtube: sea}\n"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("octopus", "#octopus"),
        ("#DeepSea", "#DeepSea"),
        (" #sea_2 ", "#sea_2"),
        ("#हिन्दी", "#हिन्दी"),
        ("#cafe\u0301", "#café"),
        ("#می\u200cخواهم", "#می\u200cخواهم"),
        ("＃海", "#海"),
        ("#1984", "#1984"),
    ],
)
def test_a_word_of_any_script_is_a_hashtag_with_or_without_its_sign(written: str, meant: str) -> None:
    assert Hashtag(written) == meant


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("#Ocean Life", "'#Ocean Life' has a space in it; write '#OceanLife'"),
        ("", 'this text is empty; write something, or remove it; write it like `hashtags: ["#fun", "#facts"]'),
        ("#", "'#' is an empty hashtag; write a word such as '#ocean', or remove it"),
        ("#x#y", "'#x#y' is more than one hashtag; list them one by one: '#x', '#y'"),
        ("#\N{OCTOPUS}", "'#\N{OCTOPUS}' has no letter or digit; a hashtag is a word such as '#ocean'"),
        ("#sea-life", "'#sea-life' has a character that ends a hashtag in it; write '#sealife'"),
        ("x" * 101, "has 101 characters; a hashtag has at most 100"),
    ],
)
def test_a_channel_with_a_bad_hashtag_is_refused_with_the_value_and_the_right_form(written: str, right: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(f"{ONE}    hashtags: [fine, {written!r}]\n")
    assert "channel 'sea': hashtags.1: " in str(caught.value)
    assert right in str(caught.value)


def test_a_channel_lists_each_hashtag_once_whatever_its_case() -> None:
    assert parse(f'{ONE}    hashtags: [octopus, "#Octopus", "#STRASSE", "#straße"]\n')["sea"].hashtags == ("#octopus", "#STRASSE")


@pytest.mark.parametrize("platform", list(Platform))
def test_no_platform_shows_a_hashtag_twice_no_matter_where_it_came_from(platform: Platform) -> None:
    channel = Channel(
        name="facts", title="F", brand_voice="calm", accounts={Platform("youtube"): "m"}, hashtags=("octopus", "#DeepSea", "#daily")
    )
    script = Script(
        hook="Hi.",
        scenes=(Scene(narration="A.", on_screen_text="A"),),
        title="T",
        caption="All about #Octopus.",
        hashtags=("#octopus", "#deepsea"),
    )
    assert words(script, channel, platform)[1] == "All about #Octopus.\n\n#deepsea #daily"


def test_a_script_keeps_the_marks_of_its_hashtags() -> None:
    assert unique(tag for written in ["#हिन्दी", "#cafe\u0301", "#CAFÉ"] for tag in repaired(written)) == ("#हिन्दी", "#café")


def test_what_a_model_wrote_is_repaired_where_one_can_see_what_it_meant() -> None:
    assert repaired("deep sea!") == ("#deepsea",)
    assert repaired("#x#y") == ("#x", "#y")
    assert repaired("#\N{OCTOPUS}") == ()


def test_hashtags_in_a_text_are_those_that_a_platform_sees() -> None:
    assert in_text("C# and a#b, but #one, #हिन्दी! (#three) ＃海 &#39;") == ("#one", "#हिन्दी", "#three", "#海")


@given(st.text(max_size=30))
def test_a_hashtag_read_back_from_a_caption_is_the_same_hashtag(text: str) -> None:
    for tag in repaired(text):
        assert Hashtag(tag) == tag
        assert in_text(f"Look: {tag} again") == (tag,)


def test_a_banned_word_is_found_by_whole_letters_in_either_form_and_case() -> None:
    channel = Channel(
        name="facts",
        title="F",
        brand_voice="calm",
        accounts={Platform("youtube"): "m"},
        banned_words=("ह", "cafe\u0301", "straße"),
    )
    assert channel.banned_in("हिन्दी is a language") == []
    assert channel.banned_in("a CAFÉ in the STRASSE") == ["café", "straße"]

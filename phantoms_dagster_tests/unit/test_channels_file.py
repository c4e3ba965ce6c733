"""channels.yaml: what it may say, and that every mistake is named with file, channel and key."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain.channels import FORMS, default_text, parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Channel, Platform

ONE = "channels:\n  sea:\n    title: The Sea\n    brand_voice: Calm.\n    accounts: {youtube: sea}\n"


def test_the_default_file_is_valid_and_posts_everywhere() -> None:
    [channel] = parse(default_text()).values()
    assert set(channel.accounts) == set(Platform)


TIKTOK = ONE.replace("youtube: sea", "tiktok: sea")


def test_a_tiktok_account_needs_a_choice_of_who_may_see_its_posts() -> None:
    with pytest.raises(InvalidInput, match=r"channel 'sea': tiktok: say who may see .* `tiktok: \{privacy: PUBLIC_TO_EVERYONE"):
        parse(TIKTOK)
    choices = parse(TIKTOK + "    tiktok: {privacy: SELF_ONLY}\n")["sea"].tiktok
    assert choices is not None
    assert choices.model_dump() == {
        "privacy": "SELF_ONLY",
        **dict.fromkeys(("comments", "duets", "stitches", "your_brand", "branded_content"), False),
    }


def test_the_first_channel_of_the_file_is_the_first_of_the_mapping() -> None:
    second = ONE.removeprefix("channels:\n").replace("sea:", "air:")
    assert list(parse(ONE + second)) == ["sea", "air"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "needs a mapping `channels:`"),
        ("channels: {}", "needs a mapping `channels:`"),
        ("- a", "needs a mapping `channels:`"),
        ("channels: [", "line 1: not valid YAML"),
        (ONE + "  sea:\n    title: Again\n", "line 6: not valid YAML: key 'sea' stands twice"),
        (ONE + "    title: Again\n", "line 6: not valid YAML: key 'title' stands twice"),
        (ONE + "    name: other\n", "line 6: channel 'sea': name:"),
        (ONE + "    colour: red\n", "line 6: channel 'sea': colour: there is no such key; the keys are title, brand_voice"),
        (ONE + "    target_seconds: 5\n", "line 6: channel 'sea': target_seconds:"),
        (ONE + "    target_seconds: half a minute\n", "target_seconds: 30, a whole number from 15 to 60"),
        (ONE + "    timezone: Mars/Olympus\n", "line 6: channel 'sea': timezone: unknown time zone"),
        (ONE + "    timezone: Europe\n", "line 6: channel 'sea': timezone: unknown time zone"),
        (ONE + "    posting_hours: {start: 9, end: 9}\n", "line 6: channel 'sea': posting_hours: start and end are the same hour"),
        (ONE + "    posting_hours:\n      start: 9\n      end: 25\n", "line 8: channel 'sea': posting_hours.end:"),
        (
            ONE + "    language: English\n",
            "line 6: channel 'sea': language: 'English' is no language code of BCP 47; write it like `language: en",
        ),
        (ONE + "    language: xx-YY\n", "'xx-YY' is no language code"),
        (ONE + "    language: 2026-13-45\n", "'2026-13-45' is no language code"),
        (ONE.replace("{youtube: sea}", "{}"), "line 5: channel 'sea': accounts: a channel needs at least one account"),
        (ONE.replace("youtube", "vimeo"), "line 5: channel 'sea': accounts.vimeo"),
        (ONE.replace("  sea:", "  Sea Side:"), "line 2: channel 'Sea Side': the name 'Sea Side' may have small letters"),
        (ONE + "defaults: {}\n", "line 6: unknown key 'defaults'"),
        ("channels: {sea: 5}", "line 1: channel 'sea': must be a mapping"),
        (ONE + "    tiktok: {}\n", "tiktok.privacy"),
        (ONE + "    tiktok: {privacy: everybody}\n", "tiktok.privacy"),
        (ONE + "    tiktok: {privacy: SELF_ONLY, branded_content: true}\n", "cannot go out as SELF_ONLY"),
        (ONE + "    instagram: {hashtags: 31}\n", "instagram.hashtags"),
        ("[" * 3_000, "not valid YAML"),
        # A `#` that nobody meant as a comment.
        (
            ONE + "    hashtags: [#fun, #facts]\n",
            'line 6: a # begins a comment in YAML, so the rest of this line is missing; write it like `hashtags: ["#fun"',
        ),
        (ONE + "    hashtags: [#fun, #facts]\n    voice: default\n    language: en\n", "line 6: a # begins a comment"),
        (ONE + "    hashtags: #fun\n", "line 6: channel 'sea': hashtags: nothing is here, because a # begins a comment"),
        (ONE + "    hashtags:\n      - #fun\n", "line 7: channel 'sea': hashtags.0: nothing is here, because a # begins a comment"),
        (
            ONE + "    palette:\n      accent: #ffd23f\n",
            "line 7: channel 'sea': palette.accent: nothing is here, because a # begins",
        ),
        (ONE + "    palette: {accent: yellow}\n", "line 6: channel 'sea': palette.accent: "),
        (ONE + "    voice:\n", "line 6: channel 'sea': voice: nothing is here; give it a value or remove the line"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_right_form(content: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(content, name="my.yaml")
    assert str(caught.value).startswith("my.yaml")
    assert reason in str(caught.value)


def test_every_value_is_what_was_written_and_not_what_yaml_makes_of_it() -> None:
    written = ONE.replace("{youtube: sea}", "{instagram: 17841400008460056, youtube: 007}").replace("The Sea", "1984")
    [channel] = parse(written + "    language: no\n    banned_words: [no, 5, 1.50]\n    made_for_kids: false\n").values()
    assert channel.accounts == {Platform.INSTAGRAM: "17841400008460056", Platform.YOUTUBE: "007"}
    assert (channel.title, channel.language, channel.banned_words) == ("1984", "no", ("no", "5", "1.50"))
    assert channel.made_for_kids is False


@pytest.mark.parametrize(("written", "tag"), [("en_US", "en-US"), ("EN", "en"), ("pt-br", "pt-BR"), ("zh-hans", "zh-Hans")])
def test_a_language_is_kept_in_its_usual_form(written: str, tag: str) -> None:
    assert parse(ONE + f"    language: {written}\n")["sea"].language == tag


def test_every_key_of_a_channel_has_a_form_to_show_and_the_default_file_explains_it() -> None:
    keys = set(Channel.model_fields) - {"name"}
    assert set(FORMS) == keys
    assert {key for key in keys if f"    {key}:" in default_text()} == keys


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["title", "timezone", "accounts", "budget_usd", "palette", "voice"]))
def test_no_value_makes_it_raise_anything_else(value: str, key: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse(f"{ONE}    {key}: {value}\n")

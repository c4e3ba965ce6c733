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


def test_the_default_file_is_valid_and_posts_on_the_usual_platforms() -> None:
    [channel] = parse(default_text()).values()
    assert set(channel.accounts) == set(Platform.usual())


TIKTOK = ONE.replace("youtube: sea", "tiktok: sea")


def test_a_tiktok_account_needs_a_choice_of_who_may_see_its_posts() -> None:
    with pytest.raises(InvalidInput, match=r"channel 'sea': tiktok: say who may see .* `tiktok: \{privacy: PUBLIC_TO_EVERYONE"):
        parse(TIKTOK)
    choices = parse(TIKTOK + "    tiktok: {privacy: SELF_ONLY}\n")["sea"].key_of(Platform("tiktok"))
    assert choices is not None
    assert choices.model_dump() == {
        "route": "direct",
        "privacy": "SELF_ONLY",
        **dict.fromkeys(("comments", "duets", "stitches", "your_brand", "branded_content"), False),
    }


def test_a_channel_whose_creator_finishes_the_drafts_needs_no_choice() -> None:
    choices = parse(TIKTOK + "    tiktok: {route: inbox}\n")["sea"].key_of(Platform("tiktok"))
    assert choices is not None
    assert choices.audience() == "CHOSEN_BY_CREATOR"
    terms = choices.terms()
    assert terms is not None
    assert terms.way() == "inbox"
    assert "switches on the AI label" in terms.summary()


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
        (ONE + "  sea:\n    title: Again\n", "line 6: not valid YAML: key 'sea' appears twice"),
        (ONE + "    title: Again\n", "line 6: not valid YAML: key 'title' appears twice"),
        (ONE + "    name: other\n", "line 6: channel 'sea': name:"),
        (ONE + "    colour: red\n", "line 6: channel 'sea': colour: there is no such key; the keys are title, brand_voice"),
        (ONE + "    target_seconds: 5\n", "line 6: channel 'sea': target_seconds:"),
        (ONE + "    target_seconds: half a minute\n", "target_seconds: 30`, a whole number from 15 to 60"),
        (ONE + "    timezone: Mars/Olympus\n", "line 6: channel 'sea': timezone: unknown time zone"),
        (ONE + "    timezone: Europe\n", "line 6: channel 'sea': timezone: unknown time zone"),
        (ONE + "    posting_hours: {start: 9, end: 9}\n", "line 6: channel 'sea': posting_hours: start and end are the same hour"),
        (ONE + "    posting_hours:\n      start: 9\n      end: 25\n", "line 8: channel 'sea': posting_hours.end:"),
        (
            ONE + "    language: English\n",
            "line 6: channel 'sea': language: 'English' is not a BCP 47 language code; write it like `language: en",
        ),
        (ONE + "    language: xx-YY\n", "'xx-YY' is not a BCP 47 language code"),
        (ONE + "    language: 2026-13-45\n", "'2026-13-45' is not a BCP 47 language code"),
        (ONE.replace("{youtube: sea}", "{}"), "line 5: channel 'sea': accounts: a channel needs at least one account"),
        (ONE.replace("youtube", "vimeo"), "line 5: channel 'sea': accounts.vimeo"),
        (ONE.replace("  sea:", "  Sea Side:"), "line 2: channel 'Sea Side': the name 'Sea Side' may only have lower-case letters"),
        (ONE + "defaults: {}\n", "line 6: unknown key 'defaults'"),
        ("channels: {sea: 5}", "line 1: channel 'sea': must be a mapping"),
        (ONE + "    tiktok: {}\n", "tiktok: say who may see its TikTok posts"),
        (ONE + "    tiktok: {privacy: everybody}\n", "tiktok.privacy"),
        (ONE + "    tiktok: {privacy: SELF_ONLY, branded_content: true}\n", "cannot go out as SELF_ONLY"),
        (ONE + "    instagram: {hashtags: 31}\n", "instagram.hashtags"),
        (ONE + "    instagram: {trial: manual, collaborators: [lab]}\n", "a trial reel cannot have collaborators"),
        (
            ONE + "    instagram: {trial: true}\n",
            "instagram.trial: should be 'manual' or 'performance'; write it like",
        ),
        (ONE + "    instagram: {collaborators: [a b]}\n", "instagram.collaborators.0: 'a b' is no Instagram username"),
        ("[" * 3_000, "not valid YAML"),
        # A `#` that is not meant as a comment.
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
        (
            ONE + "    posting_hours: 9-21\n",
            "line 6: channel 'sea': posting_hours: should be pairs of a key and a value; write it like",
        ),
        (
            ONE + "    posting_hours: {start: early}\n",
            "line 6: channel 'sea': posting_hours.start: should be a whole number; write",
        ),
        (ONE + "    hashtags: fun\n", "line 6: channel 'sea': hashtags: should be a list; write it like `hashtags: ["),
        (ONE + "    palette: {background: ['#ffffff']}\n", "line 6: channel 'sea': palette.background.1: is missing; write"),
        (ONE + "    tiktok: {privacy: everybody}\n", "tiktok.privacy: should be 'PUBLIC_TO_EVERYONE', 'FOLLOWER_OF_CREATOR', '"),
        (
            ONE.replace("youtube", "vimeo"),
            "accounts.vimeo: should be 'youtube', 'tiktok', 'instagram', 'folder' or 'bluesky'; write",
        ),
        (ONE + "    made_for_kids: maybe\n", "line 6: channel 'sea': made_for_kids: should be true or false; write"),
        (ONE + "    budget_usd: 1e400\n", "line 6: channel 'sea': budget_usd: should be at most 1,000,000 and have at most six"),
        (ONE + "    budget_usd: 1e-400\n", "line 6: channel 'sea': budget_usd: should be at most 1,000,000 and have at most six"),
        (ONE + "    budget_usd: NaN\n", "line 6: channel 'sea': budget_usd: should be a number; write it like `budget_usd: 1.50`"),
        (ONE + "    budget_usd: -1\n", "line 6: channel 'sea': budget_usd: should be at least 0; write"),
        (ONE + "    banned_words: ''\n", "line 6: channel 'sea': banned_words: this text is empty"),
        (ONE + "    banned_words:\n      - fine\n      - ' '\n", "line 8: channel 'sea': banned_words.1: this text is empty"),
        (ONE.replace("{youtube: sea}", "{youtube: ' '}"), "line 5: channel 'sea': accounts.youtube: this text is empty"),
        (ONE.replace("The Sea", '"The Sea\\u202Exe"'), "line 3: channel 'sea': title: contains the invisible character U+202E"),
        (ONE.replace("The Sea", '"The Sea\\x07"'), "line 3: channel 'sea': title: contains the control character U+0007"),
        (ONE.replace("The Sea", '"The\\nSea"'), "line 3: channel 'sea': title: goes over several lines; write it on one"),
        (ONE.replace("The Sea", '"The\\u2028Sea"'), "line 3: channel 'sea': title: goes over several lines; write it on one"),
        (ONE.replace("Calm.", '"Calm.\\x1b[2J"'), "line 4: channel 'sea': brand_voice: contains the control character U+001B"),
        # Where the secret of an account is, said twice, for nobody, or wrongly.
        (
            ONE.replace("youtube: sea", "youtube: {account: sea, token: env:ONE}") + "    tokens: {youtube: env:TWO}\n",
            "line 5: channel 'sea': accounts.youtube.token: `tokens` also has an entry for youtube; remove one of the two",
        ),
        (
            ONE + "    tokens: {tiktok: env:ONE}\n",
            "line 6: channel 'sea': tokens.tiktok: there is no TikTok account under `accounts`",
        ),
        (ONE + "    tokens: env:ONE\n", "line 6: channel 'sea': tokens: should be pairs of a key and a value; write it like"),
        (
            ONE + "    tokens:\n      youtube: abc\n",
            "line 7: channel 'sea': tokens.youtube: the token of the YouTube account: write env:",
        ),
        (
            ONE.replace("{youtube: sea}", "\n      youtube:\n        account: sea\n        token: abc"),
            "line 8: channel 'sea': accounts.youtube.token: the token of the YouTube account: write env:",
        ),
        (
            ONE.replace("{youtube: sea}", "\n      youtube: {name: sea}"),
            "line 6: channel 'sea': accounts.youtube: write {account: NAME, token: env:VARIABLE}, or only the name",
        ),
        (ONE + "    voice:\n", "line 6: channel 'sea': voice: nothing is here; give it a value or remove the line"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_right_form(content: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(content, name="my.yaml")
    assert str(caught.value).startswith("my.yaml")
    assert reason in str(caught.value)


def test_every_mistake_is_reported_at_once_in_the_order_of_the_lines() -> None:
    """Only the first was reported, and the next one after that was corrected."""
    written = """channels:
  sea:
    title: The Sea
    brand_voice: Calm.
    accounts: {youtube: sea, tiktok: sea}
    colour: red
    target_seconds: 5
    timezone: Mars/Olympus
    hashtags: fun
  sky:
    title: ""
    brand_voice: High.
    accounts: {youtube: sky, vimeo: sky}
    voice:
    posting_hours: {start: early, end: 99}
    budget_usd: 1e400
  Wrong Name:
    title: Fine
    brand_voice: Fine.
    accounts: {youtube: fine}
extra: 1
"""
    with pytest.raises(InvalidInput) as caught:
        parse(written, name="my.yaml")
    first, *lines = str(caught.value).splitlines()
    assert first == "my.yaml: 13 mistakes"
    starts = [
        "  line 2: channel 'sea': tiktok: say who may see its TikTok posts",
        "  line 6: channel 'sea': colour: there is no such key",
        "  line 7: channel 'sea': target_seconds: ",
        "  line 8: channel 'sea': timezone: unknown time zone",
        "  line 9: channel 'sea': hashtags: should be a list",
        "  line 11: channel 'sky': title: this text is empty",
        "  line 13: channel 'sky': accounts.vimeo: should be",
        "  line 14: channel 'sky': voice: nothing is here",
        "  line 15: channel 'sky': posting_hours.start: should be a whole number",
        "  line 15: channel 'sky': posting_hours.end: should be at most 24",
        "  line 16: channel 'sky': budget_usd: should be at most 1,000,000",
        "  line 17: channel 'Wrong Name': the name 'Wrong Name' may only have",
        "  line 21: unknown key 'extra' next to `channels`",
    ]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_a_key_that_leans_on_a_wrong_one_is_not_called_wrong_too() -> None:
    written = ONE.replace("{youtube: sea}", "{vimeo: sea}") + "    tokens: {youtube: env:ONE}\n"
    with pytest.raises(InvalidInput) as caught:
        parse(written, name="my.yaml")
    assert "tokens" not in str(caught.value)
    assert "mistakes" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(FORMS))
@pytest.mark.parametrize(
    "value", ["x", "[x]", "{x: y}", "5", "''", "[[]]", "{youtube: []}", "{start: [], hashtags: x, privacy: {}}"]
)
def test_no_mistake_is_reported_in_the_words_of_pydantic(key: str, value: str) -> None:
    lines = [line for line in ONE.splitlines() if not line.strip().startswith(f"{key}:")]
    try:
        parse("\n".join([*lines, f"    {key}: {value}"]))
    except InvalidInput as error:
        told = str(error).split("; write it like")[0]
        assert "line " in told
        for word in ("Input", "valid ", "String", "Tuple", "dictionary", "Value error", "[key]"):
            assert word not in told, told


def test_what_else_is_wrong_with_a_channel_is_named_with_its_line() -> None:
    with pytest.raises(
        InvalidInput, match=r"my.yaml line 6: channel 'sea': voice: nobody knows it; write it like `voice: default`"
    ):
        parse(ONE + "    voice: lost\n", name="my.yaml", check=lambda channel: ("voice", "nobody knows it"))
    assert parse(ONE, check=lambda _channel: None)["sea"].voice == "default"


def test_a_text_in_a_block_has_no_line_feed_at_its_end_and_a_voice_may_have_several_lines() -> None:
    written = ONE.replace("The Sea", ">\n      The Sea\n").replace("Calm.", "|\n      Calm.\n      Slow.\n")
    [channel] = parse(written + "    tokens: {youtube: env:ONE}\n").values()
    assert (channel.title, channel.brand_voice) == ("The Sea", "Calm.\nSlow.")
    assert channel.tokens == {Platform("youtube"): "env:ONE"}


def test_every_value_is_what_was_written_and_not_what_yaml_makes_of_it() -> None:
    written = ONE.replace("{youtube: sea}", "{instagram: 17841400008460056, youtube: 007}").replace("The Sea", "1984")
    [channel] = parse(written + "    language: no\n    banned_words: [no, 5, 1.50]\n    made_for_kids: false\n").values()
    assert channel.accounts == {Platform("instagram"): "17841400008460056", Platform("youtube"): "007"}
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


def test_a_route_that_does_not_exist_is_answered_with_an_example_that_has_one() -> None:
    content = (
        "channels: {sea: {title: Sea, brand_voice: Calm., accounts: {tiktok: sea}, tiktok: {route: post, privacy: SELF_ONLY}}}"
    )
    with pytest.raises(
        InvalidInput, match=r"route.*; write it like `tiktok: \{.*route: direct.*; route may also be inbox or gateway"
    ):
        parse(content)

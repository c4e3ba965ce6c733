"""The words of a post, as each platform shows them."""

from __future__ import annotations

import json

import pytest

from phantoms_dagster.domain.hashtags import Hashtag
from phantoms_dagster.domain.models import (
    Channel,
    MediaFile,
    Platform,
    PostWords,
    Scene,
    Script,
    content_hash,
)
from phantoms_dagster.domain.wording import changes, compose, notes, post_words, words
from phantoms_dagster.platforms.instagram.choices import InstagramChoices
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices, TikTokTerms

MASTER = MediaFile(sha256="0" * 64, size=1, suffix=".mp4")


def script(**changes: object) -> Script:
    fields: dict[str, object] = {
        "hook": "Did you know?",
        "scenes": (Scene(narration="The sea is deep.", on_screen_text="Deep"),),
        "title": "The <deep> sea",
        "caption": "a > b",
        "hashtags": ("#sea", "#facts"),
    }
    return Script(**{**fields, **changes})


def channel(*hashtags: str) -> Channel:
    return Channel(name="facts", title="Facts", brand_voice="calm", accounts={Platform("youtube"): "main"}, hashtags=hashtags)


def test_the_hashtags_of_script_and_channel_follow_the_caption_each_once() -> None:
    assert words(script(), channel("#facts", "#daily"), Platform("tiktok"))[1] == "a > b\n\n#sea #facts #daily"


def test_a_caption_without_hashtags_ends_with_its_last_word() -> None:
    assert words(script(hashtags=()), channel(), Platform("instagram"))[1] == "a > b"


def test_youtube_is_spared_the_brackets_that_it_refuses() -> None:
    title, caption = words(script(), channel("#love"), Platform("youtube"))
    assert (title, caption) == ("The ‹deep› sea", "a › b\n\n#sea #facts #love")  # noqa: RUF001  the guillemets are what is shown


@pytest.mark.parametrize("platform", [Platform("tiktok"), Platform("instagram")])
def test_other_platforms_show_the_words_as_they_were_written(platform: Platform) -> None:
    assert words(script(), channel(), platform) == ("The <deep> sea", "a > b\n\n#sea #facts")


def size(caption: str, platform: Platform) -> int:
    if platform is Platform("youtube"):
        return len(caption.encode())
    return len(caption.encode("utf-16-le")) // 2 if platform is Platform("tiktok") else len(caption)


@pytest.mark.parametrize(
    ("platform", "most"), [(Platform("youtube"), 5_000), (Platform("tiktok"), 2_200), (Platform("instagram"), 2_200)]
)
@pytest.mark.parametrize("letter", ["x", "<", "\N{ROCKET}"])
def test_the_longest_words_in_any_alphabet_keep_within_the_limits(platform: Platform, most: int, letter: str) -> None:
    tags = tuple(f"#{n:02d}{'x' * 48}" for n in range(15))
    longest = script(title=letter * 100, caption=letter * 1_500, hashtags=tags)
    title, caption = words(longest, channel(*(f"#{n}" for n in range(40))), platform)
    assert len(title) <= 100
    assert size(caption, platform) <= most
    assert caption.count("#") <= (5 if platform is Platform("instagram") else 30)


def test_instagram_gets_five_hashtags_the_channels_before_the_scripts_and_says_which_were_left_out() -> None:
    tagged = script(caption="Eels #first", hashtags=("#a", "#b", "#c", "#d"))
    title, caption, left_out = compose(tagged, channel("#ad", "#daily"), Platform("instagram"))
    assert (title, caption) == ("The <deep> sea", "Eels #first\n\n#a #b #ad #daily")
    assert left_out == ("#c", "#d")
    assert compose(tagged, channel("#ad", "#daily"), Platform("tiktok"))[2] == ()
    [post] = post_words(tagged, channel("#ad", "#daily"), [Platform("instagram")])
    assert post.left_out == left_out


def test_hashtags_and_mentions_too_many_inside_a_caption_become_plain_words() -> None:
    written = "Ask @one, @two.x and @three or @four; #a #b #c #d #e #f a@b.org"
    _, caption, left_out = compose(script(caption=written, hashtags=("#g",)), channel(), Platform("instagram"))
    assert caption == "Ask @one, @two.x and @three or four; #a #b #c #d #e f a@b.org"
    assert left_out == ("@four", "#f", "#g")


def test_the_numbers_of_hashtags_and_mentions_are_the_channels_setting() -> None:
    few = channel("#daily").model_copy(update={"instagram": InstagramChoices(hashtags=1, mentions=0)})
    assert compose(script(caption="By @one"), few, Platform("instagram"))[1:] == ("By one\n\n#daily", ("@one", "#sea", "#facts"))
    none = few.model_copy(update={"instagram": InstagramChoices(hashtags=0)})
    assert compose(script(caption="a #b"), none, Platform("instagram"))[1:] == ("a b", ("#b", "#sea", "#facts", "#daily"))


def test_a_caption_that_is_too_long_loses_its_last_hashtags_before_any_of_its_words() -> None:
    text = "x" * 1_500
    tags = tuple(f"#{n:02d}{'x' * 48}" for n in range(15))
    caption = words(script(caption=text, hashtags=tags), channel(*(f"#{'y' * 90}{n}" for n in range(3))), Platform("tiktok"))[1]
    assert caption.startswith(text)
    assert caption.split("\n\n")[1].split() == list(tags[:13])


def test_a_caption_that_fits_no_other_way_is_cut_and_says_so() -> None:
    caption = words(script(caption="\N{ROCKET}" * 1_500), channel(), Platform("tiktok"))[1]
    assert caption == "\N{ROCKET}" * 1_099 + "…"


def test_a_caption_that_is_cut_ends_with_a_sentence_or_a_whole_word() -> None:
    """An ellipsis was in the middle of a word."""
    wide = "\N{ROCKET}" * 70
    sentences = f"Octopuses {wide} have three hearts while they rest. " * 12
    assert (
        words(script(caption=sentences.strip()), channel(), Platform("tiktok"))[1]
        == (sentences[: len(sentences) // 12 * 11]).strip()
    )
    endless = f"octopuses {wide} have the " * 15
    assert words(script(caption=endless.strip()), channel(), Platform("tiktok"))[1].endswith(" have the octopuses…")


def tiktok(**choices: object) -> Channel:
    given = {"privacy": "SELF_ONLY", **choices}
    return channel().model_copy(update={"tiktok": TikTokChoices.model_validate(given)})


def test_tiktoks_terms_are_part_of_what_is_approved() -> None:
    """A change of who may see a post, of an interaction or of a disclosure needs a new approval."""
    [post] = post_words(script(), tiktok(), [Platform("tiktok")])
    assert post.privacy == "SELF_ONLY"
    assert post.terms == TikTokTerms(
        comments=False,
        duets=False,
        stitches=False,
        your_brand=False,
        branded_content=False,
        ai_generated=True,
        declaration="By posting, you agree to TikTok's Music Usage Confirmation.",
    )
    hashes = {
        content_hash(script(), MASTER, post_words(script(), changed, [Platform("tiktok")]))
        for changed in (tiktok(), tiktok(privacy="PUBLIC_TO_EVERYONE"), tiktok(comments=True), tiktok(your_brand=True))
    }
    assert len(hashes) == 4
    now = post_words(script(), tiktok(duets=True), [Platform("tiktok")])
    assert changes([post], now) == "TikTok tiktok: +duets=True -duets=False"


def test_words_that_were_approved_before_are_read_and_written_as_they_were_and_keep_their_hash() -> None:
    """Otherwise every video that is approved and not yet posted would be refused. The hash is the one of version 0.1.0."""
    said = "By posting, you agree to TikTok's Music Usage Confirmation."
    off = {"duets": False, "stitches": False, "your_brand": False, "branded_content": False}
    shared = {"title": "The sea", "caption": "About the sea.\n\n#sea"}
    terms = {"comments": True, **off, "ai_generated": True, "declaration": said, "version": "2026-09"}
    stored = [
        {"platform": "youtube", **shared, "privacy": "public", "made_for_kids": False, "left_out": [], "tiktok": None},
        {"platform": "tiktok", **shared, "privacy": "SELF_ONLY", "made_for_kids": False, "left_out": ["#x"], "tiktok": terms},
    ]
    posts = [PostWords.model_validate_json(json.dumps(one)) for one in stored]
    assert [post.model_dump_json() for post in posts] == [json.dumps(one, separators=(",", ":")) for one in stored]
    approved = Script(
        hook="Did you know?", scenes=script().scenes, title="The sea", caption="About the sea.", hashtags=(Hashtag("#sea"),)
    )
    hashed = content_hash(approved, MediaFile(sha256="a" * 64, size=1, suffix=".mp4"), posts)
    assert hashed == "5ef45fece10fdbfa917a8650bc2ed68fa1fff20f23ac88d298d490f4b188b067"


def test_branded_content_names_its_policy_and_is_never_for_oneself_alone() -> None:
    [post] = post_words(script(), tiktok(privacy="PUBLIC_TO_EVERYONE", branded_content=True), [Platform("tiktok")])
    assert isinstance(post.terms, TikTokTerms)
    assert post.terms.declaration == "By posting, you agree to TikTok's Branded Content Policy and Music Usage Confirmation."
    assert notes(post) == [
        'comments, duets and stitches off; branded content, which TikTok labels "Paid partnership"; labelled as made by AI. '
        + post.terms.declaration
        + " https://www.tiktok.com/legal/page/global/bc-policy/en"
        " https://www.tiktok.com/legal/page/global/music-usage-confirmation/en"
    ]
    with pytest.raises(ValueError, match="SELF_ONLY"):
        tiktok(branded_content=True)


@pytest.mark.parametrize(
    ("choices", "label"),
    [
        ({"your_brand": True}, "Promotional content"),
        ({"your_brand": True, "branded_content": True}, "Paid partnership"),
        ({}, None),
    ],
)
def test_a_reviewer_reads_how_tiktok_labels_advertising(choices: dict[str, bool], label: str | None) -> None:
    [post] = post_words(script(), tiktok(privacy="PUBLIC_TO_EVERYONE", **choices), [Platform("tiktok")])
    [note] = notes(post)
    assert (f'which TikTok labels "{label}"' in note) == (label is not None)
    assert ("no advertising" in note) == (label is None)
    assert note.endswith("https://www.tiktok.com/legal/page/global/music-usage-confirmation/en")


def test_other_platforms_declare_nothing_of_tiktoks() -> None:
    posts = post_words(script(), tiktok(), [Platform("youtube"), Platform("instagram")])
    assert [(post.terms, post.privacy) for post in posts] == [(None, "public"), (None, "public")]

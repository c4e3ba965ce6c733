"""The words that stand beside a post, as each platform shows them."""

from __future__ import annotations

import pytest

from phantoms_dagster.domain.models import Channel, Platform, Scene, Script
from phantoms_dagster.domain.wording import words


def script(**changes: object) -> Script:
    fields: dict[str, object] = {
        "hook": "Did you know?",
        "scenes": (Scene(narration="The sea is deep.", on_screen_text="Deep"),),
        "title": "The <deep> sea",
        "caption": "a > b",
        "hashtags": ("#sea", "#facts"),
    }
    return Script(**{**fields, **changes})  # type: ignore[arg-type]


def channel(*hashtags: str) -> Channel:
    return Channel(name="facts", title="Facts", brand_voice="calm", accounts={Platform.YOUTUBE: "main"}, hashtags=hashtags)


def test_the_hashtags_of_script_and_channel_follow_the_caption_each_once() -> None:
    assert words(script(), channel("#facts", "#daily"), Platform.TIKTOK)[1] == "a > b\n\n#sea #facts #daily"


def test_a_caption_without_hashtags_ends_with_its_last_word() -> None:
    assert words(script(hashtags=()), channel(), Platform.INSTAGRAM)[1] == "a > b"


def test_youtube_is_spared_the_brackets_that_it_refuses() -> None:
    title, caption = words(script(), channel("#love"), Platform.YOUTUBE)
    assert (title, caption) == ("The ‹deep› sea", "a › b\n\n#sea #facts #love")  # noqa: RUF001  the guillemets are what is shown


@pytest.mark.parametrize("platform", [Platform.TIKTOK, Platform.INSTAGRAM])
def test_other_platforms_show_the_words_as_they_were_written(platform: Platform) -> None:
    assert words(script(), channel(), platform) == ("The <deep> sea", "a > b\n\n#sea #facts")


def size(caption: str, platform: Platform) -> int:
    if platform is Platform.YOUTUBE:
        return len(caption.encode())
    return len(caption.encode("utf-16-le")) // 2 if platform is Platform.TIKTOK else len(caption)


@pytest.mark.parametrize(("platform", "most"), [(Platform.YOUTUBE, 5_000), (Platform.TIKTOK, 2_200), (Platform.INSTAGRAM, 2_200)])
@pytest.mark.parametrize("letter", ["x", "<", "\N{ROCKET}"])
def test_the_longest_words_in_any_alphabet_keep_within_the_limits(platform: Platform, most: int, letter: str) -> None:
    tags = tuple(f"#{n:02d}{'x' * 48}" for n in range(15))
    longest = script(title=letter * 100, caption=letter * 1_500, hashtags=tags)
    title, caption = words(longest, channel(*(f"#{n}" for n in range(40))), platform)
    assert len(title) <= 100
    assert size(caption, platform) <= most
    assert caption.count("#") <= 30


def test_a_caption_that_is_too_long_loses_its_last_hashtags_before_any_of_its_words() -> None:
    text = "x" * 1_500
    tags = tuple(f"#{n:02d}{'x' * 48}" for n in range(15))
    caption = words(script(caption=text, hashtags=tags), channel(*(f"#{'y' * 90}{n}" for n in range(3))), Platform.TIKTOK)[1]
    assert caption.startswith(text)
    assert caption.split("\n\n")[1].split() == list(tags[:13])


def test_a_caption_that_fits_no_other_way_is_cut_and_says_so() -> None:
    caption = words(script(caption="\N{ROCKET}" * 1_500), channel(), Platform.TIKTOK)[1]
    assert caption == "\N{ROCKET}" * 1_099 + "…"

"""The words that stand beside a post, as each platform shows them."""

from __future__ import annotations

import pytest

from phantoms_dagster.domain.models import Channel, Platform, Scene, Script
from phantoms_dagster.production.varying import words


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
    title, caption = words(script(), channel("#<3"), Platform.YOUTUBE)
    assert (title, caption) == ("The ‹deep› sea", "a › b\n\n#sea #facts #‹3")  # noqa: RUF001  the guillemets are what is shown


@pytest.mark.parametrize("platform", [Platform.TIKTOK, Platform.INSTAGRAM])
def test_other_platforms_show_the_words_as_they_were_written(platform: Platform) -> None:
    assert words(script(), channel(), platform) == ("The <deep> sea", "a > b\n\n#sea #facts")


@pytest.mark.parametrize("platform", Platform)
def test_the_longest_script_keeps_within_every_platforms_limits(platform: Platform) -> None:
    tags = tuple(f"#{n:02d}{'x' * 48}" for n in range(15))
    title, caption = words(script(title="<" * 100, caption="<" * 1_500, hashtags=tags[:10]), channel(), platform)
    assert len(title) <= 100
    if platform is Platform.YOUTUBE:
        assert len(caption.encode()) <= 5_000 + 400
    else:
        assert len(caption.encode("utf-16-le")) // 2 <= 2_200

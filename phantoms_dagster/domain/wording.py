"""What each platform is told beside a film: the words of a post, made of script and channel.

Which of them were approved belongs in `production.approving`; how a platform is told belongs in its adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from phantoms_dagster.domain.hashtags import in_text, unique
from phantoms_dagster.domain.models import Channel, Platform, PostWords, Script
from phantoms_dagster.domain.text import graphemes

DEFAULT_PRIVACY: Mapping[Platform, str] = MappingProxyType(
    {Platform.YOUTUBE: "public", Platform.TIKTOK: "PUBLIC_TO_EVERYONE", Platform.INSTAGRAM: "public"}
)
# YouTube refuses < and >; single guillemets read the same.
_NO_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a"})
_MOST_HASHTAGS = 30  # Instagram's limit; nobody reads more anywhere


def post_words(
    script: Script, channel: Channel, platforms: Iterable[Platform], privacy: Mapping[Platform, str] = DEFAULT_PRIVACY
) -> tuple[PostWords, ...]:
    """What those platforms would be told now, in their order."""
    return tuple(_post_words(script, channel, platform, privacy) for platform in platforms)


def _post_words(script: Script, channel: Channel, platform: Platform, privacy: Mapping[Platform, str]) -> PostWords:
    title, caption = words(script, channel, platform)
    return PostWords(
        platform=platform,
        title=title,
        caption=caption,
        privacy=privacy.get(platform, DEFAULT_PRIVACY[platform]),
        made_for_kids=channel.made_for_kids,
    )


def words(script: Script, channel: Channel, platform: Platform) -> tuple[str, str]:
    """The title and the caption, hashtags included, as that platform shows them.

    Limits (contracts of the platforms): YouTube 100 characters without < and >, 5,000 bytes of description; TikTok 2,200
    UTF-16 units; Instagram 2,200 characters and 30 hashtags. A hashtag that the caption has already is not repeated,
    whatever its case. Hashtags that do not fit are left out, the last ones first;
    a caption that does not fit even so is cut.
    """
    title, caption = script.title, script.caption
    if platform is Platform.YOUTUBE:
        title, caption = title.translate(_NO_BRACKETS), caption.translate(_NO_BRACKETS)
    written = in_text(caption)
    there = {tag.key for tag in written}
    tags = [tag for tag in unique([*script.hashtags, *channel.hashtags]) if tag.key not in there]
    del tags[max(0, _MOST_HASHTAGS - len(written)) :]
    while tags and not _fits(f"{caption}\n\n{' '.join(tags)}", platform):
        tags.pop()
    if not _fits(caption, platform):
        letters = graphemes(caption)
        while not _fits(f"{''.join(letters)}…", platform):
            letters.pop()
        caption = f"{''.join(letters)}…"
    return title, f"{caption}\n\n{' '.join(tags)}".strip()


def _fits(caption: str, platform: Platform) -> bool:
    match platform:
        case Platform.YOUTUBE:
            return len(caption.encode()) <= 5_000
        case Platform.TIKTOK:
            return len(caption.encode("utf-16-le")) // 2 <= 2_200
        case Platform.INSTAGRAM:
            return len(caption) <= 2_200

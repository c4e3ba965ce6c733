"""The words of a post, composed from script and channel for each platform.

`production.stages.approval` decides which words were approved. Each adapter sends them to its platform.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from phantoms_dagster.domain.hashtags import HASHTAG, MENTION, in_text, unique, without_signs
from phantoms_dagster.domain.models import Channel, Platform, PostWords, Script
from phantoms_dagster.domain.phrases import shortened

DEFAULT_PRIVACY: Mapping[Platform, str] = MappingProxyType({platform: platform.spec.words.privacy for platform in Platform})


def post_words(
    script: Script, channel: Channel, platforms: Iterable[Platform], privacy: Mapping[Platform, str] = DEFAULT_PRIVACY
) -> tuple[PostWords, ...]:
    """The words that the posts on those platforms would have now, in the order of the platforms."""
    return tuple(_post_words(script, channel, platform, privacy) for platform in platforms)


def _post_words(script: Script, channel: Channel, platform: Platform, privacy: Mapping[Platform, str]) -> PostWords:
    title, caption, left_out = compose(script, channel, platform)
    return words_with_settings(channel, platform, privacy, title=title, caption=caption, left_out=left_out)


def words_with_settings(
    channel: Channel,
    platform: Platform,
    privacy: Mapping[Platform, str],
    *,
    title: str,
    caption: str,
    left_out: tuple[str, ...] = (),
) -> PostWords:
    """These words with the channel's settings for that platform: who may see the post, and what it declares."""
    key = channel.key_of(platform)
    audience = key.audience() if key is not None else None
    terms = key.terms() if key is not None else None
    return PostWords(
        platform=platform,
        title=title,
        caption=caption,
        privacy=audience if audience is not None else privacy.get(platform, DEFAULT_PRIVACY[platform]),
        made_for_kids=channel.made_for_kids,
        left_out=left_out,
        **({} if terms is None else {platform.spec.name: terms}),
    )


def notes(post: PostWords) -> list[str]:
    """What a reviewer must know besides the words: what was left out, and what they declare by approving."""
    found = [f"left out, no room: {' '.join(post.left_out)}"] if post.left_out else []
    return [*found, post.terms.summary()] if post.terms else found


def changes(shown: Sequence[PostWords], now: Sequence[PostWords]) -> str:
    """Describe how `now` differs from `shown`; empty when they are equal."""
    before = {post.platform: post for post in shown}
    found = []
    for post in now:
        old = before.pop(post.platform, None)
        if old is None:
            found.append(f"{post.platform.title} is new")
            continue
        for name in ("title", "caption", "privacy", "made_for_kids", "terms"):
            was, is_now = str(getattr(old, name)), str(getattr(post, name))
            if was != is_now:
                named = post.platform if name == "terms" else name.replace("_", " ")
                found.append(f"{post.platform.title} {named}: {_difference(was, is_now)}")
    return "; ".join([*found, *(f"{platform.title} is gone" for platform in before)])


def _difference(was: str, is_now: str) -> str:
    """The added and removed words, at most ten of each."""
    old, new = was.split(), is_now.split()
    parts = [f"+{word}" for word in new if word not in old][:10] + [f"-{word}" for word in old if word not in new][:10]
    return " ".join(parts) or "in another order"


def words(script: Script, channel: Channel, platform: Platform) -> tuple[str, str]:
    """The title and the caption, as `compose` returns them."""
    title, caption, _ = compose(script, channel, platform)
    return title, caption


def compose(script: Script, channel: Channel, platform: Platform) -> tuple[str, str, tuple[str, ...]]:
    """The title, the caption with its hashtags, and what was left out, for that platform.

    The limits are in the platform's rules; some platforms also have limits in the channel. A hashtag that the caption already has
    is not repeated, whatever its case. On a platform with channel limits, hashtags in the caption take precedence, then the
    channel's, then the script's. The last ones are left out first. An excess hashtag or mention inside the caption loses its sign
    and stays as a word. A caption that is still too long is cut at the end of a sentence or a word.
    """
    rules = platform.spec.words
    title, caption = rules.clean(script.title), rules.clean(script.caption)
    key = channel.key_of(platform)
    limits = key.tag_limits() if key is not None else None
    most_tags = limits.hashtags if limits else rules.hashtags
    left_out: list[str] = []
    if limits:
        caption, unsaid = without_signs(caption, MENTION, limits.mentions)
        caption, untagged = without_signs(caption, HASHTAG, most_tags)
        left_out += [*unsaid, *untagged]
    written = in_text(caption)
    there = {tag.key for tag in written}
    tags = [tag for tag in unique([*script.hashtags, *channel.hashtags]) if tag.key not in there]
    own = {tag.key for tag in channel.hashtags}
    order = sorted(tags, key=lambda tag: tag.key not in own) if limits else tags
    kept = order[: max(0, most_tags - len(written))]
    while kept and not _fits(_with_tags(caption, [tag for tag in tags if tag in kept]), platform):
        kept.pop()
    if not _fits(caption, platform):
        caption = shortened(caption, rules.room, channel.language, size=rules.size)
    left_out += [tag for tag in tags if tag not in kept]
    return title, _with_tags(caption, [tag for tag in tags if tag in kept]).strip(), tuple(dict.fromkeys(map(str, left_out)))


def _with_tags(caption: str, tags: Iterable[str]) -> str:
    return f"{caption}\n\n{' '.join(tags)}"


def _fits(caption: str, platform: Platform) -> bool:
    rules = platform.spec.words
    return rules.size(caption) <= rules.room

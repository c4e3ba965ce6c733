"""The channel's choices for its YouTube videos, and how each post goes out.

Sources: YouTube Data API v3, videos.insert, captions.insert, thumbnails.set; determine_quota_cost. That the videos are synthetic is
always declared, so there is no choice about it.
"""

from __future__ import annotations

from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec, PostTerms


class YouTubeChoices(ChannelKey):
    """How the channel's videos are posted.

    `notify_subscribers`: YouTube tells subscribers about each video. `captions`: the spoken words are added as a caption track, for
    search and accessibility. It costs 400 of the project's 10,000 units a day. `thumbnail`: the picture of the render becomes the
    thumbnail (50 units), if the account may set thumbnails.
    """

    notify_subscribers: bool = True
    captions: bool = False
    thumbnail: bool = False

    def terms(self) -> YouTubeTerms | None:
        """See ChannelKey. None when the channel chose nothing, as in channels from before these choices."""
        terms = YouTubeTerms(**self.model_dump())
        return None if terms == YouTubeTerms() else terms


class YouTubeTerms(PostTerms):
    """How one video is posted. A person agrees to it by approving. See `YouTubeChoices` for the fields."""

    notify_subscribers: bool = True
    captions: bool = False
    thumbnail: bool = False

    def summary(self) -> str:
        """See PostTerms."""
        parts = [] if self.notify_subscribers else ["subscribers are not notified"]
        if self.extras():
            parts.append(f"with {' and '.join(_WORDS[name] for name in self.extras())} after the publication")
        return "; ".join(parts)

    def extras(self) -> tuple[str, ...]:
        """See PostTerms."""
        return tuple(name for name in _WORDS if getattr(self, name))


_WORDS = {"captions": "a caption track", "thumbnail": "a thumbnail"}  # by the names of `domain.post_extras`

CHANNEL_KEY = ChannelKeySpec(
    model=YouTubeChoices, terms=YouTubeTerms, form="youtube: {captions: true, thumbnail: true, notify_subscribers: false}"
)

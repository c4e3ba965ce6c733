"""The channel's choices for its YouTube videos, and how each post goes out.

Sources: YouTube Data API v3, videos.insert, captions.insert, thumbnails.set; determine_quota_cost. That the videos are synthetic is
always declared, so there is no choice about it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, TypeAlias

from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec, PostTerms

Release: TypeAlias = Literal["phantoms", "youtube"]
# Enough for the upload and the usual processing. An earlier upload could be moved and cancelled for less of the time.
LEAD = timedelta(minutes=15)


class YouTubeChoices(ChannelKey):
    """How the channel's videos are posted.

    `notify_subscribers`: YouTube tells subscribers about each video. `captions`: the spoken words are added as a caption track, for
    search and accessibility. It costs 400 of the project's 10,000 units a day. `thumbnail`: the picture of the render becomes the
    thumbnail (50 units), if the account may set thumbnails. `release`: whose clock makes a video with a time public. `youtube`: it
    is uploaded a quarter of an hour before, and YouTube makes it public (`publishAt`). `phantoms`: it is uploaded at its time, and
    we make it public as soon as it is processed.
    """

    notify_subscribers: bool = True
    captions: bool = False
    thumbnail: bool = False
    release: Release = "phantoms"

    def terms(self) -> YouTubeTerms | None:
        """See ChannelKey. None when the channel chose nothing, as in channels from before these choices."""
        terms = YouTubeTerms(**self.model_dump())
        return None if terms == YouTubeTerms() else terms


class YouTubeTerms(PostTerms):
    """How one video is posted. A person agrees to it by approving. See `YouTubeChoices` for the fields."""

    notify_subscribers: bool = True
    captions: bool = False
    thumbnail: bool = False
    release: Release = "phantoms"

    def summary(self) -> str:
        """See PostTerms."""
        parts = [] if self.notify_subscribers else ["subscribers are not notified"]
        if self.release == "youtube":
            parts.append("YouTube makes it public at its time")
        if self.extras():
            parts.append(f"with {' and '.join(_WORDS[name] for name in self.extras())} after the publication")
        return "; ".join(parts)

    def lead(self) -> timedelta:
        """See PostTerms."""
        return LEAD if self.release == "youtube" else timedelta(0)

    def extras(self) -> tuple[str, ...]:
        """See PostTerms."""
        return tuple(name for name in _WORDS if getattr(self, name))


_WORDS = {"captions": "a caption track", "thumbnail": "a thumbnail"}  # by the names of `domain.post_extras`

CHANNEL_KEY = ChannelKeySpec(
    model=YouTubeChoices,
    terms=YouTubeTerms,
    form="youtube: {captions: true, thumbnail: true, notify_subscribers: false, release: youtube}",
)

"""The channel's choices for its Instagram reels, and what each post declares.

Sources: Meta for Developers, IG User media; the parameters of Meta's own client, v26.0. That all our reels are made by AI is always
declared, so there is no choice about it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec, PostTerms, TagLimits

MAX_COLLABORATORS = 3
_USERNAME = re.compile(r"[a-z0-9_](?:[a-z0-9._]{0,28}[a-z0-9_])?")
_COVER = re.compile(r"https://[!-~]+")

# What becomes of a trial reel: the owner shares it in the app, or Instagram shares it by itself if it does well.
Trial = Literal["manual", "performance"]


def _username(name: object) -> object:
    if not isinstance(name, str):
        return name
    found = name.strip().removeprefix("@").lower()
    if not _USERNAME.fullmatch(found):
        raise ValueError(f"{name!r} is no Instagram username")
    return found


def _cover(url: object) -> object:
    if isinstance(url, str) and not _COVER.fullmatch(url):
        raise ValueError("give the whole https address of a JPEG that anybody can fetch, without spaces or accents")
    return url


Username = Annotated[str, BeforeValidator(_username)]


class InstagramChoices(ChannelKey):
    """How the channel's reels are posted.

    `hashtags`, `mentions`: the most in a caption; the rest is left out. Since December 2025 Instagram counts only five hashtags.
    `share_to_feed`: the reel is shown on the profile's grid, too. `trial`: only people who do not follow the account see the reel
    at first. `collaborators`: accounts that are invited to show the reel as theirs, too. `cover_seconds`: which frame is the cover.
    `cover_url`: a picture that is the cover of each reel. Without the two Instagram chooses a frame.
    """

    hashtags: Annotated[int, Field(ge=0, le=30)] = 5
    mentions: Annotated[int, Field(ge=0, le=20)] = 3
    share_to_feed: bool = True
    trial: Trial | None = None
    collaborators: Annotated[tuple[Username, ...], Field(max_length=MAX_COLLABORATORS)] = ()
    cover_seconds: Annotated[float, Field(ge=0, le=900, allow_inf_nan=False)] | None = None
    cover_url: Annotated[str, BeforeValidator(_cover)] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.trial is not None and self.collaborators:
            raise ValueError("a trial reel cannot have collaborators: leave one of the two out")
        if self.cover_seconds is not None and self.cover_url is not None:
            raise ValueError("give cover_seconds or cover_url, not both: Instagram would use only the picture")
        if len(set(self.collaborators)) < len(self.collaborators):
            raise ValueError("collaborators names an account twice")
        return self

    def tag_limits(self) -> TagLimits:
        """See ChannelKey."""
        return TagLimits(self.hashtags, self.mentions)

    def terms(self) -> InstagramTerms | None:
        """See ChannelKey. None when the channel chose nothing, as in channels from before these choices."""
        terms = InstagramTerms(**self.model_dump(exclude={"hashtags", "mentions"}))
        return None if terms == InstagramTerms() else terms


class InstagramTerms(PostTerms):
    """How one reel is posted. A person agrees to it by approving. See `InstagramChoices` for the fields."""

    share_to_feed: bool = True
    trial: Trial | None = None
    collaborators: tuple[str, ...] = ()
    cover_seconds: float | None = None
    cover_url: str | None = None

    def summary(self) -> str:
        """See PostTerms."""
        trial = {
            "manual": "its owner shares it with followers in the app",
            "performance": "Instagram shares it with followers if it does well",
        }
        parts = [f"a trial reel for people who do not follow the account; {trial[self.trial]}"] if self.trial is not None else []
        if self.collaborators:
            parts.append(f"invites {', '.join(f'@{name}' for name in self.collaborators)} as collaborators")
        if not self.share_to_feed and self.trial is None:
            parts.append("not on the profile's grid")
        if self.cover_seconds is not None:
            parts.append(f"its cover is the frame at {self.cover_seconds:g} s")
        if self.cover_url is not None:
            parts.append(f"its cover is {self.cover_url}")
        return "; ".join(parts)

    def set_apart(self) -> str | None:
        """See PostTerms. Until it is shared with followers, a trial reel is shown to other people than any other reel."""
        return "trial reel" if self.trial is not None else None


CHANNEL_KEY = ChannelKeySpec(
    model=InstagramChoices,
    terms=InstagramTerms,
    always_written=frozenset({"key"}),
    form="instagram: {hashtags: 5, mentions: 3, trial: performance}; others are share_to_feed, collaborators, cover_seconds and "
    "cover_url",
)

"""The channel's limits for the captions of its Instagram posts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec, TagLimits


class InstagramLimits(ChannelKey):
    """The most hashtags and mentions in a caption; the rest is left out.

    Since December 2025 Instagram counts only five hashtags.
    """

    hashtags: Annotated[int, Field(ge=0, le=30)] = 5
    mentions: Annotated[int, Field(ge=0, le=20)] = 3

    def tag_limits(self) -> TagLimits:
        """See ChannelKey."""
        return TagLimits(self.hashtags, self.mentions)


CHANNEL_KEY = ChannelKeySpec(model=InstagramLimits, form="instagram: {hashtags: 5, mentions: 3}")

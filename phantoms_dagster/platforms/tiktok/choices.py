"""The channel's choices for its TikTok posts, and what each post declares."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec, PostTerms, RequiredKey

TIKTOK_DECLARATION = "2026-09"  # the guidelines' wording of that month


class TikTokChoices(ChannelKey):
    """The choices that TikTok's content sharing guidelines require a person to make for its posts.

    Unless the channel says otherwise, interactions are off and the content is not advertising. The audience has no default.
    `your_brand`: the content promotes the account's own business. `branded_content`: a third party pays for it.
    """

    privacy: Literal["PUBLIC_TO_EVERYONE", "FOLLOWER_OF_CREATOR", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
    comments: bool = False
    duets: bool = False
    stitches: bool = False
    your_brand: bool = False
    branded_content: bool = False

    @model_validator(mode="after")
    def _seen_by_others(self) -> Self:
        if self.branded_content and self.privacy == "SELF_ONLY":
            raise ValueError("branded_content cannot go out as SELF_ONLY; choose another privacy")
        return self

    def audience(self) -> str:
        """See ChannelKey."""
        return self.privacy

    def terms(self) -> TikTokTerms:
        """See ChannelKey."""
        policy = "Branded Content Policy and Music Usage Confirmation" if self.branded_content else "Music Usage Confirmation"
        said = f"By posting, you agree to TikTok's {policy}."
        return TikTokTerms(declaration=said, **self.model_dump(exclude={"privacy"}))


class TikTokTerms(PostTerms):
    """What a TikTok post declares. A person agrees to it by approving. The approval records it with their name and the time.

    `declaration` is the guidelines' own text and `version` its month. All our videos are made by AI and labelled as such.
    """

    comments: bool
    duets: bool
    stitches: bool
    your_brand: bool
    branded_content: bool
    ai_generated: bool = True
    declaration: str
    version: str = TIKTOK_DECLARATION

    def summary(self) -> str:
        """See PostTerms."""
        on = [name for name in ("comments", "duets", "stitches") if getattr(self, name)]
        discloses = [name.replace("_", " ") for name in ("your_brand", "branded_content") if getattr(self, name)]
        label = "labelled as made by AI" if self.ai_generated else "no AI label"
        parts = [
            f"{', '.join(on)} on" if on else "comments, duets and stitches off",
            ", ".join(discloses) or "no advertising",
            label,
        ]
        return f"{'; '.join(parts)}. {self.declaration}"


CHANNEL_KEY = ChannelKeySpec(
    model=TikTokChoices,
    terms=TikTokTerms,
    always_written=frozenset({"key", "terms"}),
    form="tiktok: {privacy: PUBLIC_TO_EVERYONE, comments: true}; others are duets, stitches, your_brand and branded_content",
    required=RequiredKey(
        mistake="say who may see its TikTok posts: PUBLIC_TO_EVERYONE, FOLLOWER_OF_CREATOR, MUTUAL_FOLLOW_FRIENDS or SELF_ONLY, "
        "for TikTok allows no default",
        unsaid="who may see its posts there",
        example="tiktok: {privacy: ...}",
    ),
)
